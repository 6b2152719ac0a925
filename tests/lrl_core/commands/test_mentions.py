import pytest

from lrl_core.commands import CommandError
from lrl_core.commands.mentions import in_arguments, in_config, kind_of


def found(mentions):
    return {(m.name, m.kind, m.certain) for m in mentions}


def test_names_in_a_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(
        """
        model:
          policy: {class_path: CausalLM, init_args: {name: gpt2, path: my.package.Thing}}
          decoder: Sample
          reward:
            class_path: Sum
            init_args:
              rewards: [{class_path: CIDErD}, Brevity]
          baseline: {class_path: SelfCritical, init_args: {decoder: Greedy}}
          evaluation_decoder: BeamSearch
          warm_up: {objective: CrossEntropy}
          optimizer: AdamW
        data: Captioning
        trainer: {callbacks: [{class_path: RolloutLog}], max_epochs: 3, logger: null}
        """
    )
    assert found(in_config(tmp_path / "r.yaml")) == {
        ("CausalLM", "policies", True),
        ("gpt2", None, False),
        ("Sample", "decoders", True),
        ("Sum", "rewards", True),
        ("CIDErD", "rewards", True),
        ("Brevity", "rewards", False),
        ("SelfCritical", "baselines", True),
        ("Greedy", "decoders", False),
        ("BeamSearch", "decoders", True),
        ("CrossEntropy", "objectives", True),
        ("AdamW", None, True),
        ("Captioning", "tasks", True),
        ("RolloutLog", "callbacks", True),
    }


def test_the_place_is_told(tmp_path):
    (tmp_path / "r.yaml").write_text("model: {reward: {class_path: A}}")
    assert [m.where for m in in_config(tmp_path / "r.yaml")] == [f"{tmp_path / 'r.yaml'}: model.reward.class_path"]
    assert [m.where for m in in_arguments(["fit", "--model.reward=A"])] == ["--model.reward"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.reward", "CIDErD"], ("CIDErD", "rewards", True)),
        (["--model.reward=CIDErD"], ("CIDErD", "rewards", True)),
        (["--model.reward.class_path=CIDErD"], ("CIDErD", "rewards", True)),
        (["--model.reward.help", "CIDErD"], ("CIDErD", "rewards", True)),
        (["--model.reward.help=CIDErD"], ("CIDErD", "rewards", True)),
        (["--data", "Captioning", "--x", "3"], ("Captioning", "tasks", True)),
        (["--data.help", "Captioning"], ("Captioning", "tasks", True)),
        (["--reward", "CIDErD"], ("CIDErD", "rewards", True)),
        (["--trainer.callbacks+=RolloutLog"], ("RolloutLog", "callbacks", False)),
        (["--model.reward={class_path: CIDErD}"], ("CIDErD", "rewards", True)),
        (["--model.baseline.decoder", "Greedy"], ("Greedy", "decoders", True)),
    ],
)
def test_names_in_options(arguments, expected):
    assert found(in_arguments(["fit", *arguments])) == {expected}


@pytest.mark.parametrize("value", ["null", "3", "a.b.C", "[1, 2]", "{", "--flag", ""])
def test_values_that_name_nothing(value):
    assert found(in_arguments(["--model.reward", value])) == set()


def test_included_files_are_read(tmp_path, monkeypatch):
    (tmp_path / "reward.yaml").write_text("class_path: Inner")
    (tmp_path / "r.yaml").write_text("model: {reward: reward.yaml}")
    assert found(in_config(tmp_path / "r.yaml")) == {("Inner", "rewards", True)}
    monkeypatch.chdir(tmp_path)
    assert found(in_arguments(["--model.reward", "reward.yaml"])) == {("Inner", "rewards", True)}


def test_unreadable_yaml_names_the_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("model: [")
    with pytest.raises(CommandError, match=r"r\.yaml is not readable as YAML"):
        list(in_config(path))


def test_kind_of():
    assert kind_of(["model", "reward", "init_args"]) == "rewards"
    assert kind_of(["model", "optimizer"]) is None
    assert kind_of([]) is None

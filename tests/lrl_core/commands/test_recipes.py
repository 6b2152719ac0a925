import json
from pathlib import Path

import pytest

from lrl_core.cli import main
from lrl_core.commands import CommandError, naming, recipes
from lrl_core.commands.mentions import Mention


def test_heads_are_read(shipped_recipes, capsys):
    assert main(["recipes", "--json"]) == 0
    plain, quickstart = json.loads(capsys.readouterr().out)
    assert quickstart == {
        "name": "captioning/quickstart",
        "summary": "Teaches a small captioner in two minutes, on drawn scenes.",
        "paper": "Rennie et al. 2017, self-critical training",
        "result": "CIDErD 1.5",
        "command": "lrl fit --config captioning/quickstart",
        "time": "2 min",
    }
    assert plain["name"] == "captioning/plain"
    assert plain["paper"] == ""


def test_table(shipped_recipes, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recipes"]) == 0
    assert "captioning/quickstart" in capsys.readouterr().out


@pytest.mark.parametrize("destination", [[], ["mine.yaml"], ["new/folder/"], ["new/deep/mine.yaml"]])
def test_copy(shipped_recipes, tmp_path, monkeypatch, capsys, destination):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "--copy", "captioning/quickstart", *destination]) == 0
    target = Path(capsys.readouterr().out.splitlines()[0])
    assert target.read_bytes() == (shipped_recipes / "captioning" / "quickstart.yaml").read_bytes()
    assert target.name == ("mine.yaml" if destination and "mine" in destination[0] else "quickstart.yaml")


def test_copy_never_overwrites(shipped_recipes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text("mine")
    assert main(["recipes", "--copy", "captioning/quickstart"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert (tmp_path / "quickstart.yaml").read_text() == "mine"


def test_copy_of_an_unknown_recipe(shipped_recipes, capsys):
    assert main(["recipes", "--copy", "captioning/quikstart"]) == 2
    assert "Did you mean 'captioning/quickstart'?" in capsys.readouterr().err


def test_resolve(shipped_recipes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = shipped_recipes / "captioning" / "plain.yaml"
    assert recipes.resolve("captioning/plain") == shipped
    assert recipes.resolve("captioning/plain.yaml") == shipped
    (tmp_path / "captioning").mkdir()
    (tmp_path / "captioning" / "plain.yaml").write_text("mine: 1")
    assert recipes.resolve("captioning/plain.yaml") == Path("captioning/plain.yaml")  # the user's own file comes first
    with pytest.raises(CommandError, match=r"Did you mean 'captioning/plain'\? Shipped recipes: captioning/plain, "):
        recipes.resolve("captioning/plian")


def test_the_installed_recipes_have_a_head():
    for name, path in recipes.shipped().items():
        assert recipes.read(name, path).summary, f"{path} begins with a comment line that says what it does"


@pytest.fixture
def shipped_presets(shipped_recipes):
    (shipped_recipes / "presets").mkdir()
    for name in ("dr_grpo", "reinforce_plus_plus"):
        (shipped_recipes / "presets" / f"{name}.yaml").write_text("# A preset.\nmodel: {replay: Fresh}\n")
    (shipped_recipes / "zebra").mkdir()
    (shipped_recipes / "zebra" / "last.yaml").write_text("# The last task.\n")
    return shipped_recipes


def test_presets_are_listed_after_the_recipes(shipped_presets, capsys):
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    assert said.index("zebra/last") < said.index("presets/dr_grpo") < said.index("presets/reinforce_plus_plus")


def test_a_copied_preset_says_that_it_wants_a_recipe(shipped_presets, tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    assert main(["recipes", "--copy", "presets/dr_grpo", str(target)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"Run it: lrl fit --config RECIPE --config {target}"


@pytest.mark.parametrize("spelling", ["DrGRPO", "dr_grpo", "DR-GRPO", "Dr. GRPO"])
def test_a_preset_is_found_however_its_method_is_spelt(shipped_presets, spelling):
    assert recipes.preset_of(spelling) == "presets/dr_grpo"
    assert recipes.preset_of("REINFORCE++") == "presets/reinforce_plus_plus"
    assert recipes.preset_of("GRPO") is None
    assert recipes.preset_of("quickstart") is None


@pytest.mark.parametrize("kind", ["objectives", None])
def test_the_name_of_a_preset_in_place_of_a_class_is_explained(shipped_presets, kind):
    with pytest.raises(CommandError, match="DrGRPO is a preset, not a class: add --config presets/dr_grpo after the"):
        naming.import_named([Mention("DrGRPO", "--model.objective", kind, certain=True)])
    with pytest.raises(CommandError, match="Did you mean 'Reinforce'"):
        naming.import_named([Mention("Reinforc", "--model.objective", kind, certain=True)])


def test_copy_takes_one_destination(shipped_recipes, capsys):
    assert main(["recipes", "--copy", "captioning/quickstart", "a.yaml", "b.yaml"]) == 2
    assert "at most one destination" in capsys.readouterr().err

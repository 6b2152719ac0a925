"""What every shipped recipe and preset owes its user: exact resume, a ratio of 1, numbers that show what happens."""

import csv
import math

import pytest
import torch
import yaml
from recipe_runs import RECIPES, fit, smaller, write_data

from lrl_core import module
from lrl_core.commands import CommandError, recipes

PRESETS = [name for name in recipes.shipped() if recipes.is_preset(name)]
BASE = "data_to_text/self_critical"
"""What presets are added to."""
EACH_EPOCH = """
trainer:
  callbacks+:
    class_path: ModelCheckpoint
    init_args: {filename: "{epoch}", mode: max, save_top_k: -1, save_on_train_epoch_end: true}
"""
SAVED = ("state_dict", "optimizer_states", "lr_schedulers")


def read(name):
    return yaml.safe_load(RECIPES[name].read_text())["model"]


REINFORCED = [name for name in RECIPES if read(name).get("replay", "Expert") != "Expert"]
LARGE_TWINS = {
    *("arithmetic/gsm8k", "arithmetic/grpo", "arithmetic/raft", "captioning/maximum_likelihood"),
    *("captioning/reinforce", "captioning/self_critical", "captioning/x_linear"),
    *("data_to_text/self_critical", "goal_oriented_questions/countries"),
    *("gflownet/arithmetic_ppo", "gflownet/arithmetic_sft", "gflownet/arithmetic_start", "gflownet/language_model"),
    *("gflownet/subjectivity_model", "gflownet/subjectivity_sft", "language_modelling/maximum_likelihood"),
}
"""Recipes whose parts a smaller or quicker one has too, so that only the slow tests stop and resume them."""
every_way = pytest.mark.parametrize("name", [*RECIPES, *PRESETS])
every_reinforced_way = pytest.mark.parametrize("name", [*REINFORCED, *PRESETS])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def train_tiny(name, data, folder, *options):
    """Two epochs of two batches, reinforcement from the start where there is any; a checkpoint of each epoch."""
    base = BASE if name in PRESETS else name
    preset = [f"--config={name}"] if name in PRESETS else []
    extra = folder.with_suffix(".yaml")
    extra.write_text(EACH_EPOCH)
    at_once = ["--model.warm_up.epochs=0"] if "warm_up" in read(base) else []
    # One epoch for what learns before the policy, one for both.
    at_once += ["--model.learners_first=1"] if read(base).get("learners_first", 0) > 1 else []
    two = ["--trainer.max_epochs=2", *at_once, *smaller(RECIPES[base])]
    return fit(base, data, folder, *preset, f"--config={extra}", *two, *options)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The whole run of a recipe, made once."""
    runs = {}

    def of(name):
        if name not in runs:
            runs[name] = train_tiny(name, data, tmp_path_factory.mktemp("whole") / "run")
        return runs[name]

    return of


def numbers(folder, column):
    with (folder / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.equal(second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE_TWINS else ()) for name in [*RECIPES, *PRESETS]]
)
def test_resuming_changes_nothing(name, data, whole, tmp_path):
    """Weights, learners, controllers, means, replays, optimisers, draws and the order of the data come back."""
    folder = whole(name)
    resumed = train_tiny(name, data, tmp_path / "resumed", f"--ckpt_path={folder / 'checkpoints' / 'epoch=0.ckpt'}")
    first, second = (torch.load(run / "checkpoints" / "epoch=1.ckpt", weights_only=False) for run in (folder, resumed))
    before = torch.load(folder / "checkpoints" / "epoch=0.ckpt", weights_only=False)
    assert not same(before["state_dict"], first["state_dict"])
    for part in SAVED:
        assert same(first[part], second[part]), part


@every_reinforced_way
def test_the_ratio_of_a_fresh_rollout_is_logged_and_one(name, whole):
    """Dropout is configured in most recipes; it must not part the rollout from the loss."""
    columns = [column for column in header(whole(name)) if column.endswith("ratio/first_error")]
    if not columns:
        pytest.skip("imitates its best episodes: no ratio")
    assert max(error for column in columns for error in numbers(whole(name), column)) < 1e-3


@every_reinforced_way
def test_equal_groups_unjudged_rows_and_reward_parts_are_logged(name, whole):
    columns = header(whole(name))
    assert "episode/length" in columns
    assert ("advantage/zero" in columns) == (name in PRESETS or "baseline" in read(name))
    judged = name in PRESETS or "reward" in read(name)
    assert {"groups/zero_variance", "reward/mean", "reward/unjudged"} & columns == (
        {"groups/zero_variance", "reward/mean", "reward/unjudged"} if judged else set()
    )
    if judged:
        assert all(0 <= share <= 1 for share in numbers(whole(name), "groups/zero_variance") if not math.isnan(share))


def header(folder):
    with (folder / "metrics.csv").open() as file:
        return set(next(csv.reader(file)))


@pytest.mark.parametrize("name", REINFORCED)
def test_a_metric_that_is_not_the_reward_chooses_the_checkpoint(name, whole):
    """BestCheckpoint refuses the reward's own metric when the run starts, so being there is enough."""
    callbacks = yaml.safe_load(RECIPES[name].read_text())["trainer"]["callbacks"]
    best = [callback for callback in callbacks if callback["class_path"] == "BestCheckpoint"]
    assert len(best) == 1
    assert not best[0]["init_args"].get("allow_reward", False)
    assert best[0]["init_args"]["metric"] in header(whole(name))
    assert list((whole(name) / "checkpoints").glob("best*.ckpt"))


@pytest.mark.parametrize("name", RECIPES)
def test_two_numbers_and_a_budget_are_all_sizes(name, data, capsys):
    """Everything else about batches is derived and printed."""
    section = yaml.safe_load(RECIPES[name].read_text())
    text = RECIPES[name].read_text()
    assert section["data"]["init_args"]["batch_size"] >= 1
    assert "accumulate_grad_batches" not in text
    assert "micro_batch" not in text


WRONG_SIZES = {
    "--data.init_args.batch_size=0": "batch_size",
    "--model.decoder={class_path: Sample, init_args: {samples: 0}}": "0 episodes",
    "--model.token_budget=0": "token_budget is 0",
}


@pytest.mark.parametrize("option", WRONG_SIZES)
@pytest.mark.parametrize("name", REINFORCED)
def test_impossible_sizes_are_refused_before_weights_load(name, option, data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "bind_all", lambda *_: pytest.fail("the policy was built before sizes were checked"))
    with pytest.raises(CommandError, match=WRONG_SIZES[option]):
        fit(name, data, tmp_path / "run", option)

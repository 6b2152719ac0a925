"""Every shipped recipe is parsed and trained for two batches, with its own parts; only its data is replaced."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from recipe_runs import RECIPES, data_options, fit, followed_metric, write_data

from lrl_core.commands import recipes, train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", RECIPES)
def test_runs_for_two_batches(name, data, tmp_path):
    folder = fit(name, data, tmp_path / "run")
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["train/loss"] for row in rows if row["train/loss"]] != []
    assert any(row[followed_metric(RECIPES[name])] for row in rows)
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    learns, kind = ("learner", "") if "learner" in saved["model"] else ("policy", "policies.")
    assert saved["model"][learns]["class_path"].startswith(f"lrl_plugins.{kind}")
    assert list((folder / "checkpoints").glob("*.ckpt"))


@pytest.mark.parametrize("name", RECIPES)
def test_head_says_what_it_does_what_it_reaches_and_how_long_it_takes(name):
    recipe = recipes.read(name, RECIPES[name])
    assert recipe.summary
    assert all((recipe.paper, recipe.result, recipe.time))
    assert f"--config {name}" in recipe.command


@pytest.mark.parametrize("name", RECIPES)
def test_names_strategy_and_devices_for_several_gpus(name):
    trainer = yaml.safe_load(RECIPES[name].read_text())["trainer"]
    assert {"accelerator", "devices", "strategy"} <= set(trainer)
    assert "--trainer.strategy ddp_find_unused_parameters_true" in RECIPES[name].read_text()


def test_rollouts_are_written_with_reward_by_component_and_advantage(data, tmp_path):
    folder = fit("captioning/quickstart", data, tmp_path / "run", "--model.warm_up.epochs=0")
    rows = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    row = rows[0]
    assert row["prompt"].startswith("train-")
    assert row["reward"]["total"] == row["reward"]["CIDErD"]
    assert len(row["advantage"]) == len(row["tokens"]) == len(row["action_mask"])
    assert isinstance(row["text"], str)


def test_the_readmes_recipe_runs(data, tmp_path):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    recipe = tmp_path / "readme.yaml"
    recipe.write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL).group(1))
    small = [f"--data.source.{split}=4" for split in ("train", "val", "test")]
    once = ["--trainer.limit_train_batches=1", "--trainer.max_epochs=1", "--model.warm_up.epochs=0"]
    options = ["--data.source=DrawnScenes", *small, "--data.batch_size=2", *once, "--trainer.accelerator=cpu"]
    assert train.main(["fit", "--config", str(recipe), *options, f"--run_dir={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run" / "metrics.csv").exists()


def policy_weights(folder, name="last.ckpt"):
    saved = torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
    return {key: value for key, value in saved.items() if isinstance(value, torch.Tensor)}


def same(first, second):
    return first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)


QUICK = ["--model.warm_up.epochs=1", "--trainer.limit_train_batches=3"]


def test_quickstart_twice_is_one_run_and_resuming_changes_nothing(data, tmp_path):
    """Maximum likelihood, then self-critical: two epochs; the third run stops after one and goes on."""
    name = "captioning/quickstart"
    both = [*QUICK, "--trainer.max_epochs=2"]
    whole = policy_weights(fit(name, data, tmp_path / "whole", *both))
    assert same(whole, policy_weights(fit(name, data, tmp_path / "again", *both)))
    half = fit(name, data, tmp_path / "half", *QUICK, "--trainer.max_epochs=1")
    assert not same(whole, policy_weights(half))
    resumed = fit(name, data, tmp_path / "resumed", *both, f"--ckpt_path={half / 'checkpoints' / 'last.ckpt'}")
    assert same(whole, policy_weights(resumed))


def test_another_seed_is_another_run(data, tmp_path):
    name = "captioning/quickstart"
    first = policy_weights(fit(name, data, tmp_path / "one", *QUICK))
    second = policy_weights(fit(name, data, tmp_path / "two", *QUICK, "--seed_everything=2"))
    assert not same(first, second)


def test_test_and_predict_read_a_checkpoint(data, tmp_path):
    name = "captioning/quickstart"
    options = data_options(RECIPES[name], data)
    checkpoint = fit(name, data, tmp_path / "run") / "checkpoints" / "last.ckpt"
    common = [*options, f"--ckpt_path={checkpoint}", "--trainer.accelerator=cpu"]
    assert train.main(["predict", "--config", name, *common, f"--run_dir={tmp_path / 'predict'}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "predict" / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["test-0", "test-1"]
    other = ["--model.reward=BLEU", "--model.baseline=LeaveOneOut"]  # measuring needs the policy alone
    assert train.main(["test", "--config", name, *common, *other, f"--run_dir={tmp_path / 'test'}"]) == 0
    assert "test/CIDErD" in (tmp_path / "test" / "metrics.csv").read_text()

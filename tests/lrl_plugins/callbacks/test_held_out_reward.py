"""Rewards of held-out answers: by hand, in a run, in a test, and without a trace in the answers themselves."""

import csv
import math
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer

from lrl_core.phases import WarmUp
from lrl_core.testing.toy import toy_prompts
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.callbacks.held_out import is_reward
from lrl_plugins.callbacks.held_out_reward import HeldOutReward, averaged, worth_by_prompt
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.replays.expert import Expert

SEVERAL = {"evaluation_decoder": Sample(max_length=4, samples=3)}


def rows(folder):
    with next(folder.glob("**/metrics.csv")).open() as file:
        return list(csv.DictReader(file))


def answers(groups):
    """Episodes of prompts with these numbers; nothing else of them is read."""
    prompts = toy_prompts(len(groups), same=False)
    ones = torch.ones(len(groups), 1)
    prompts = replace(prompts, group=torch.tensor(groups), examples=())
    return Rollout(prompts, ones.long(), ones[:, 0].long(), ones.bool(), ones, ones[:, 0].bool())


def test_means_and_bests_by_hand():
    nan = math.nan
    total, part = torch.tensor([1.0, 3.0, nan, -2.0, nan]), torch.tensor([0.0, nan, nan, 4.0, nan])
    found = worth_by_prompt(answers([7, 7, 7, 8, 9]), RewardSignal(total, parts={"part": part}))
    assert found == {"7": {"": (2, 3), "part": (0, 0)}, "8": {"": (-2, -2), "part": (4, 4)}}
    assert averaged(found) == {
        "reward/mean": 0, "reward/best": 0.5, "reward/part": 2, "reward/part/best": 2,
    }  # fmt: skip
    assert averaged({}) == {}


def test_a_run_logs_them_and_its_answers_are_those_of_a_run_without(short_run, tmp_path):
    module, _ = short_run(HeldOutReward(), **SEVERAL)
    logged = [row for row in rows(tmp_path) if row.get("val/reward/mean")]
    assert len(logged) == 2
    for row in logged:
        mean, best = float(row["val/reward/mean"]), float(row["val/reward/best"])
        assert 0 <= mean < best <= 4  # how often a letter was said; three draws are not all alike
    plain, _ = short_run(**SEVERAL)
    assert [answer.tokens for answer in module.answers] == [answer.tokens for answer in plain.answers]
    assert all(mine.equal(theirs) for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True))


def test_greedy_answers_have_one_number(short_run):
    _, trainer = short_run(HeldOutReward())
    assert trainer.callback_metrics["val/reward/mean"] == trainer.callback_metrics["val/reward/best"]


def test_nothing_is_scored_in_a_warm_up_or_between(short_run, tmp_path):
    warm_up = WarmUp(epochs=1, objective=CrossEntropy(), replay=Expert())
    short_run(HeldOutReward(every=2), warm_up=warm_up, epochs=5)
    scored = {row["epoch"] for row in rows(tmp_path) if row.get("val/reward/mean")}
    assert scored == {"2", "4"}  # every other validation, and not that of the warm-up


def test_validation_and_test_score_by_themselves(short_run):
    module, _ = short_run(epochs=1, **SEVERAL)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}

    class Tested(ToyTask):
        def test_dataloader(self):
            return self.val_dataloader()

    for stage, run in (("val", Trainer.validate), ("test", Trainer.test)):
        trainer = Trainer(callbacks=[HeldOutReward()], enable_model_summary=False, **quiet)
        run(trainer, module, Tested(), verbose=False)
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert numbers[f"{stage}/reward/best"] > numbers[f"{stage}/reward/mean"]


def test_a_recipe_without_reward_is_refused(short_run):
    learnt = {"objective": CrossEntropy(), "replay": Expert(), "reward": None, "baseline": None}
    with pytest.raises(ValueError, match="HeldOutReward: got a recipe without a reward"):
        short_run(HeldOutReward(), **learnt)
    with pytest.raises(ValueError, match="every is 0"):
        HeldOutReward(every=0)


def test_what_it_logs_counts_as_the_reward():
    assert is_reward("val/reward/best", set())
    assert is_reward("val/reward/LMPosterior/best", {"LMPosterior"})
    assert not is_reward("val/BLEU_4", {"LMPosterior"})


def test_a_resumed_run_goes_on_counting():
    callback = HeldOutReward(every=2)
    callback.load_state_dict({"validations": 3})
    assert callback.state_dict() == {"validations": 3}

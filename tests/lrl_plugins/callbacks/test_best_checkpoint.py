"""The best checkpoint by a number that was not trained on."""

import pytest
import torch

from lrl_core.testing.toy import TableReward
from lrl_plugins.callbacks.best_checkpoint import BestCheckpoint
from lrl_plugins.callbacks.held_out import direction_of, is_reward, reward_names
from lrl_plugins.rewards.bleu import BLEU
from lrl_plugins.rewards.cider import CIDErD
from lrl_plugins.rewards.sum import Sum


def test_names_of_the_reward_wherever_it_is_nested():
    names = reward_names(Sum({"quality": CIDErD(), "both": Sum({"overlap": BLEU()})}))
    assert names == {"Sum", "CIDErD", "BLEU", "quality", "both", "overlap"}
    assert reward_names(None) == set()


@pytest.mark.parametrize("metric", ["val/CIDErD", "val/CIDEr", "val/BLEU_4", "val/bleu", "val/quality", "reward/mean"])
def test_the_same_quantity_is_recognised(metric):
    assert is_reward(metric, {"CIDErD", "BLEU", "quality"})


@pytest.mark.parametrize("metric", ["val/ROUGE_L", "val/METEOR", "val/perplexity", "val/distinct_2", "val/SPICE"])
def test_other_quantities_are_not(metric):
    assert not is_reward(metric, {"CIDErD", "BLEU", "quality", "Sum"})


def test_less_is_better_by_name():
    assert [direction_of(f"val/{name}") for name in ("perplexity", "WER", "average_lagging")] == ["min"] * 3
    assert [direction_of(f"val/{name}") for name in ("CIDErD", "BLEU_4", "letters")] == ["max"] * 3
    assert BestCheckpoint("val/perplexity").mode == "min"
    assert BestCheckpoint("val/perplexity", mode="max").mode == "max"


class Exact(TableReward):
    """Has the name of the toy task's metric."""


def exact():
    return Exact(lambda tokens: float(tokens.count(0)))


@pytest.mark.parametrize("metric", ["val/exact", "reward/mean"])
def test_the_reward_is_refused(short_run, metric):
    with pytest.raises(ValueError, match=f"got metric '{metric}', and the policy is trained on the reward Exact"):
        short_run(BestCheckpoint(metric), reward=exact())


def test_a_part_of_the_reward_is_refused(short_run):
    reward = Sum({"exact": TableReward(lambda tokens: 1.0)})
    with pytest.raises(ValueError, match="expected a held-out metric of another kind"):
        short_run(BestCheckpoint("val/exact"), reward=reward)


def test_keeps_the_best_epoch(short_run, tmp_path):
    keep = BestCheckpoint("val/perplexity", allow_reward=False)
    scores = []

    class Watch(BestCheckpoint):
        def on_validation_end(self, trainer, pl_module):
            scores.append((float(trainer.callback_metrics["val/perplexity"]), int(pl_module.steps_done)))
            super().on_validation_end(trainer, pl_module)

    keep = Watch("val/perplexity", filename="kept")
    short_run(keep, epochs=3)
    assert len(scores) == 3
    saved = torch.load(keep.best_model_path, weights_only=False)
    assert keep.best_model_path.endswith("kept.ckpt")
    assert keep.best_model_score == pytest.approx(min(score for score, _ in scores))
    assert int(saved["state_dict"]["steps_done"]) == min(scores)[1]


def test_the_reward_is_allowed_on_request(short_run):
    keep = BestCheckpoint("val/exact", allow_reward=True)
    short_run(keep, reward=exact(), epochs=1)
    assert keep.best_model_path

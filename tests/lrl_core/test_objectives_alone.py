"""Objectives that need no advantages, or not even rewards: what the step then leaves out."""

import json

import pytest
import torch
from lightning.pytorch import Trainer

from lrl_core.interfaces import Objective
from lrl_core.module import PolicyGradient
from lrl_core.testing.toy import TableReward
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import Loss
from lrl_plugins.callbacks.rollout_log import RolloutLog
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.sum import Sum
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.fresh import Fresh


class Likelier(Objective):
    """Makes what was drawn likelier, whatever it is."""

    compares = False

    def __init__(self, judges):
        super().__init__()
        self.judges, self.seen = judges, []

    def count(self, experience):
        return experience.learn_mask.sum().float()

    def loss(self, policy, experience):
        self.seen.append(experience)
        return Loss(-policy(experience.rollout).logprobs.sum())


def build(objective, **options):
    settings = {"policy": Recurrent(cell="gru", embedding=6, hidden=8), "replay": Fresh(), "token_budget": 8}
    return PolicyGradient(
        task=ToyTask().facts(), objective=objective, decoder=Sample(max_length=4, samples=2), **settings | options
    )


def fit(folder, module):
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RolloutLog()],
    )
    trainer.fit(module, ToyTask())
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_neither_reward_nor_baseline(tmp_path):
    objective = Likelier(judges=False)
    metrics = fit(tmp_path, build(objective))
    assert objective.seen
    assert all(seen.reward is None and seen.advantage is None for seen in objective.seen)
    assert all(seen.learn_mask.equal(seen.rollout.action_mask) for seen in objective.seen)
    assert metrics["episode/length"] > 0
    assert not any(name.startswith(("reward/", "advantage/", "groups/")) for name in metrics)
    row = json.loads((tmp_path / "rollouts.jsonl").read_text().splitlines()[0])
    assert (row["reward"], row["advantage"]) == (None, None)


def test_a_reward_without_a_baseline(tmp_path):
    objective = Likelier(judges=True)
    reward = TableReward(lambda tokens: float("nan") if len(tokens) == 1 else float(len(tokens)))
    metrics = fit(tmp_path, build(objective, reward=reward))
    assert all(seen.reward is not None and seen.advantage is None for seen in objective.seen)
    assert not any(seen.learn_mask[seen.reward.total.isnan()].any() for seen in objective.seen)
    assert "reward/mean" in metrics
    assert "advantage/std" not in metrics


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_needed_is_missed(wrapped):
    objective = Likelier(judges=True)
    objective = Sum({"one": objective}) if wrapped else objective
    with pytest.raises(ValueError, match=r"learns from episodes that the replay Fresh draws.*names no reward\. Add"):
        build(objective)


def test_lines_that_branch_are_refused_by_policies_that_read_none():
    module = build(Likelier(judges=False))
    rollout = module.draw(ToyTask().facts().example)
    follows = torch.full_like(rollout.tokens, -1)
    with pytest.raises(ValueError, match=r"Recurrent: got episodes whose tokens follow other tokens"):
        module.policy(type(rollout)(**{**vars(rollout), "follows": follows}))

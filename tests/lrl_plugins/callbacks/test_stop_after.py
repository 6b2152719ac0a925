"""Limits in episodes, tokens and seconds, counted where they are drawn."""

import itertools
from types import SimpleNamespace

import pytest

from lrl_core.testing.toy import TableReward
from lrl_plugins.callbacks import stop_after
from lrl_plugins.callbacks.stop_after import StopAfter
from lrl_plugins.replays.epochs import Epochs
from lrl_plugins.replays.redraw import Redraw

STEP = 12
"""Episodes of a step: 4 prompts, 3 samples each; an epoch has 3 steps."""


def test_stops_after_the_step_in_which_the_limit_is_reached(short_run):
    limit = StopAfter(rollouts=4 * STEP - 1)
    module, _ = short_run(limit, epochs=9)
    assert module.steps_done == 4
    assert limit.spent["rollouts"] == 4 * STEP


def test_minibatches_are_not_counted_as_new_episodes_nor_forgotten(short_run):
    module, _ = short_run(StopAfter(rollouts=3 * STEP), epochs=9, replay=Epochs(epochs=3, minibatches=2))
    assert module.steps_done == 3


def test_what_is_drawn_again_counts_again(short_run):
    limit = StopAfter(rollouts=6 * STEP)
    equal = TableReward(lambda tokens: 1.0)
    module, _ = short_run(limit, epochs=9, replay=Redraw(rounds=2), reward=equal)
    assert module.steps_done == 2
    assert limit.spent["rollouts"] == 6 * STEP


def test_counts_the_tokens_that_were_chosen(short_run):
    spent = []

    class Spy(StopAfter):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            super().on_train_batch_end(trainer, pl_module, *rest)
            spent.append(int(pl_module.last_experience.rollout.action_mask.sum()))

    limit = Spy(tokens=100)
    short_run(limit, epochs=9)
    assert limit.spent["tokens"] == sum(spent) >= 100
    assert sum(spent[:-1]) < 100


def test_seconds_are_those_of_training(short_run, monkeypatch):
    ticks = itertools.count(step=5.0)
    monkeypatch.setattr(stop_after, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    limit = StopAfter(seconds=20)
    module, _ = short_run(limit, epochs=9)
    assert module.steps_done == 4
    assert limit.spent["seconds"] == 20


def test_a_resumed_run_goes_on_counting(short_run, tmp_path):
    _, trainer = short_run(StopAfter(rollouts=5 * STEP), epochs=1)
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    limit = StopAfter(rollouts=5 * STEP)
    module, trainer = short_run(limit, epochs=9, ckpt_path=tmp_path / "three.ckpt")
    assert module.steps_done == 5
    trainer.save_checkpoint(tmp_path / "five.ckpt")
    module, _ = short_run(StopAfter(rollouts=5 * STEP), epochs=9, ckpt_path=tmp_path / "five.ckpt")
    assert module.steps_done == 5


def test_leaves_the_module_as_it_was(short_run):
    module, _ = short_run(StopAfter(rollouts=1))
    assert module.collect.__func__ is type(module).collect


@pytest.mark.parametrize("limits", [{}, {"rollouts": 0}, {"tokens": 5, "seconds": -1.0}])
def test_needs_a_limit(limits):
    with pytest.raises(ValueError, match="expected at least one limit, each > 0"):
        StopAfter(**limits)

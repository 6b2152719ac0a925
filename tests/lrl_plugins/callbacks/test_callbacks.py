"""What a run writes down and shows."""

import json
import math
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from lrl_core.module import PolicyGradient
from lrl_core.phases import WarmUp
from lrl_core.testing.parts import toy_experience
from lrl_core.testing.toy import TableReward, ToyTokenizer
from lrl_core.testing.toy_task import ToyTask
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.callbacks.console import Console
from lrl_plugins.callbacks.rollout_log import RolloutLog, episode_rows
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh


def test_rows_hold_the_real_tokens_and_null_for_nan():
    rows = episode_rows(toy_experience(), step=3, count=9)
    assert len(rows) == 4
    assert rows[1]["reward"]["total"] is None
    assert rows[0]["tokens"] == [0, 1, 2, 3]
    assert rows[0]["action_mask"] == [1, 0, 1, 1]
    assert rows[2]["advantage"] == [-0.25, -0.25, -0.25]
    assert rows[3]["terminated"] is False
    json.dumps(rows, allow_nan=False)


def test_rows_of_conversations_have_turns_and_payment():
    experience = toy_experience()
    paid = torch.tensor([[0, 0, 0.5, 1.0], [0, 0, 0, 0], [0, 0, -2.0, 0], [0, 0, 0, 0]])
    talked = replace(experience, rollout=replace(experience.rollout, environment_reward=paid))
    first, second, *_ = episode_rows(talked, step=3, count=2, tokenizer=ToyTokenizer(4, eos=3))
    assert [(turn["who"], turn["text"]) for turn in first["turns"]] == [
        ("policy", "a"),
        ("world", "b"),
        ("policy", "c"),
    ]
    assert (first["paid"], second["paid"]) == (1.5, 0.0)
    assert [turn["text"] for turn in second["turns"]] == ["b"]
    monologue = episode_rows(experience, step=3, count=1, tokenizer=ToyTokenizer(4, eos=3))[0]
    assert not {"turns", "paid"} & monologue.keys()


@pytest.fixture
def run(tmp_path, capsys):
    torch.manual_seed(0)
    task = ToyTask()
    module = PolicyGradient(
        policy=Recurrent(embedding=6, hidden=8),
        objective=Reinforce(),
        replay=Fresh(),
        task=task.facts(),
        decoder=Sample(max_length=4, samples=3),
        reward=TableReward(lambda tokens: float(tokens.count(0)) if tokens[0] else math.nan),
        baseline=LeaveOneOut(),
        warm_up=WarmUp(1, CrossEntropy(), Expert()),
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=CSVLogger(tmp_path, name="", version="run"),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Console(answers=2, metric="val/exact"), RolloutLog(episodes=2, every=2)],
    )
    trainer.fit(module, task)
    (tmp_path / "shown.txt").write_text(capsys.readouterr().out)
    return tmp_path / "run"


def test_a_run_shows_its_sizes_its_answers_and_its_gain(run):
    flat = " ".join((run.parent / "shown.txt").read_text().split())
    assert "a step is 4 prompts x 3 samples = 12 episodes, read in one micro-batch; 1 epochs of maximum" in flat
    assert "epoch 1, maximum likelihood" in flat
    assert "epoch 3, reinforcement learning" in flat
    assert "before" in flat.split("epoch 2", 1)[1]
    assert "held-out exact:" in flat
    assert "after maximum likelihood" in flat


def test_a_run_writes_a_bounded_number_of_episodes(run):
    rows = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 5, 7, 7, 9, 9]  # nothing in the first epoch, every second step after
    assert all(row["prompt"].startswith("toy-") for row in rows)


def test_metrics_hold_rewards_times_and_the_ratio(run):
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    expected = {"reward/mean", "reward/unjudged", "time/rollout", "time/reward", "time/loss", "time/baseline"}
    expected |= {"time/step", "tokens_per_second", "tokens_per_second/rollout", "memory/peak", "train/ratio/first"}
    assert expected | {"train/gradient_norm", "val/exact"} <= set(header)


def test_refuses_to_write_nothing():
    with pytest.raises(ValueError, match="expected both >= 1"):
        RolloutLog(episodes=0)

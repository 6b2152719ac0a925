"""What a run makes of conversations: ratios, rewards, metrics of whole episodes, predictions."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lrl_core.module import PolicyGradient
from lrl_core.reports import Answer, EpisodeMetric
from lrl_core.testing.environments import ToyOracle
from lrl_core.testing.parts import EOS
from lrl_core.testing.toy_task import ToyTask
from lrl_plugins.baselines.means import BatchMean
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.environment import EnvironmentReward

torch.set_num_threads(1)


class MeanPaid(EpisodeMetric):
    """What was paid, and which share of the tokens the policy said."""

    given: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("given", torch.zeros(3), dist_reduce_fx="sum")
        self.answers: list[Answer] = []

    def update(self, answers):
        self.answers += answers
        own = sum(sum(a.chosen) for a in answers) / sum(len(a.tokens) for a in answers)
        self.given += torch.tensor([sum(a.paid for a in answers), own, 1.0])

    def compute(self):
        return {"paid": self.given[0] / len(self.answers), "own": self.given[1] / self.given[2]}


class Whispered(ToyOracle):
    """Only what it says itself makes the text."""

    def speech(self, tokens, chosen):
        return [token for token, own in zip(tokens, chosen, strict=True) if not own]


class TalkingTask(ToyTask):
    """The toy task with somebody who answers."""

    def facts(self):
        environment = Whispered(closes=(2, EOS), longest_turn=2, turns=3)
        return replace(super().facts(), environment=environment)

    def metrics(self, stage):
        self.metric = MeanPaid()
        return self.metric

    def predict_dataloader(self):
        return self.val_dataloader()


class Steps(Callback):
    """How far the importance ratios of fresh rollouts are from 1."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def on_train_batch_end(self, trainer, module, *rest):
        self.errors.append(float(trainer.callback_metrics["train/ratio/first_error"]))


@pytest.fixture(scope="module")
def talk():
    """A task, a module that has been trained for three steps, and what was seen of them."""
    torch.manual_seed(1)
    task, steps = TalkingTask(), Steps()
    module = PolicyGradient(
        policy=Recurrent(cell="gru", embedding=6, hidden=8),
        task=task.facts(),
        objective=Reinforce(),
        replay=Fresh(),
        decoder=Sample(max_length=9, samples=3),
        reward=EnvironmentReward(),
        baseline=BatchMean(),
        token_budget=30,
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=3, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[steps],
    )  # fmt: skip
    trainer.fit(module, task)
    return task, module, steps


def test_the_importance_ratio_of_conversations_is_one(talk):
    _, module, steps = talk
    assert len(steps.errors) == 3
    assert max(steps.errors) < 1e-4
    assert module.last_experience.rollout.closed.any()


def test_what_was_paid_is_the_reward_on_the_token_that_earned_it(talk):
    experience = talk[1].last_experience
    assert experience.reward.total.tolist() == experience.rollout.environment_reward.sum(1).tolist()
    assert experience.reward.by_token.equal(experience.rollout.environment_reward)


def test_an_episode_metric_is_given_whole_conversations(talk):
    task, module, _ = talk
    checked = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (scores,) = checked.validate(module, task, verbose=False)
    answers = task.metric.answers
    assert len(answers) == 12
    assert [answer.id for answer in answers] == [f"toy-{row}" for row in range(12)]
    assert scores["val/paid"] == pytest.approx(sum(answer.paid for answer in answers) / 12)
    for answer in answers:
        heard = [token for token, own in zip(answer.tokens, answer.chosen, strict=True) if not own]
        assert answer.text == task.tokenizer.decode(heard)  # as `speech` says
        assert answer.example == {"id": answer.id}
        assert "".join(text for _, text in answer.turns) == task.tokenizer.decode(answer.tokens)


def test_predictions_have_turns_and_payment(talk):
    task, module, _ = talk
    checked = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    rows = [row for batch in checked.predict(module, task) for row in batch]
    assert len(rows) == 12
    assert set(rows[0]) == {"id", "text", "references", "turns", "paid"}
    assert {turn["who"] for row in rows for turn in row["turns"]} == {"policy", "world"}
    assert all(row["turns"][0]["who"] == "policy" for row in rows)

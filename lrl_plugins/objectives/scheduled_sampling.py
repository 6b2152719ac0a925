"""Scheduled sampling: maximum likelihood that reads some of its own words."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.functional import Aggregation, aggregate, aggregation_count, masked_mean
from lrl_core.interfaces import Objective, Policy, Sampler, TaskFacts
from lrl_core.sampling import Sampling
from lrl_core.types import Experience, Loss, PolicyOutput, Rollout
from lrl_plugins.objectives.shared import human_answers, refuse_missing_length

Schedule = Literal["linear", "exponential", "inverse_sigmoid"]
"""How the probability of reading the human token falls with i, the number of falls so far (Bengio 2015, sec. 2.4)."""


class ScheduledSampling(Objective):
    """Cross-entropy on the human answers, read with some tokens replaced by the policy's own draws (Bengio 2015).

    A coin for each token and answer decides what is read; the targets stay human, and no gradient flows through the
    draws. The defaults are those of the captioning literature: 5 % more own tokens every 5 epochs, at most 25 %. It is
    an improper objective (Huszar 2015): keep the share of own tokens small, and end it where reinforcement begins.

    Args:
        schedule: Probability of the human token after i falls: linear 1 - slope i, exponential k^i, inverse_sigmoid
            k / (k + exp(i / k)).
        slope: Of the linear schedule.
        k: Of the other two: in (0, 1) for exponential, >= 1 for inverse_sigmoid.
        every: Epochs between two falls.
        start: Epochs in which only human tokens are read; the schedule begins after them.
        floor: The probability falls no lower than this, in [0, 1].
        aggregation: How token losses become one number: token-mean, seq-mean-token-mean, seq-mean-token-sum or
            seq-mean-token-sum-norm.
        length: The constant of seq-mean-token-sum-norm.
    """

    samples = False

    def __init__(
        self,
        schedule: Schedule = "linear",
        slope: float = 0.05,
        k: float = 0.9,
        every: int = 5,
        start: int = 0,
        floor: float = 0.75,
        aggregation: Aggregation = "token-mean",
        length: int | None = None,
    ) -> None:
        super().__init__()
        _refuse_schedule(schedule, slope, k, every, start, floor)
        refuse_missing_length(aggregation, length)
        self.schedule, self.slope, self.k, self.every = schedule, slope, k, every
        self.start, self.floor, self.aggregation, self.length = start, floor, aggregation, length
        self.sampling = Sampling()
        self.player: tuple[Policy, ...] = ()  # in a tuple, because the policy is no part of this module
        self.begin_epoch(0)

    def bind(self, facts: TaskFacts) -> None:
        self.sampling = Sampling(banned=facts.tokenizer.never_drawn)

    def check(self, sampler: Sampler) -> None:
        self.player = (sampler.policy,)

    def begin_epoch(self, epoch: int) -> None:
        falls = (epoch - self.start) // self.every
        human = 1.0 if epoch < self.start else human_share(self.schedule, falls, self.slope, self.k)
        self.own = 1 - max(self.floor, human)

    def count(self, experience: Experience) -> Tensor:
        return aggregation_count(human_answers("ScheduledSampling", experience).action_mask, self.aggregation)

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        answers = human_answers("ScheduledSampling", experience)
        mask, read = answers.action_mask, answers.tokens
        if self.own > 0:
            read = mixed(self._player(), answers, self.own, self.sampling)
        logprobs = policy(replace(answers, tokens=read)).logprobs_of(answers.tokens)
        metrics = {
            "cross_entropy": -masked_mean(logprobs.detach(), mask),
            "replaced": masked_mean((read != answers.tokens).float(), mask),
        }
        return Loss(aggregate(-logprobs, mask, self.aggregation, self.length), metrics)

    def _player(self) -> Policy:
        if not self.player:
            raise RuntimeError("ScheduledSampling: it has not seen the policy; call check(sampler) before the loss.")
        return self.player[0]


def human_share(schedule: Schedule, falls: int, slope: float, k: float) -> float:
    """Probability of reading the human token after so many falls."""
    if schedule == "linear":
        return max(0.0, 1 - slope * falls)
    if schedule == "exponential":
        return k**falls
    return 1 / (1 + math.exp(min(falls / k, 700.0)) / k)


@torch.no_grad()
def mixed(policy: Policy, answers: Rollout, own: float, sampling: Sampling) -> Int[Tensor, "B T"]:
    """The answers with each token replaced, with probability `own`, by a draw given the mixed line before it.

    Args:
        policy: Who draws; without dropout, as when it plays.
        answers: The human answers.
        own: Probability of a draw in place of the human token.
        sampling: How the draws are made.
    """
    training = policy.training
    policy.eval()
    logits, state = policy.begin(answers.prompts)
    columns = []
    for t, human in enumerate(answers.tokens.unbind(1)):
        coin = torch.rand(human.shape, device=human.device) < own
        columns.append(torch.where(coin, _draw(logits, t, sampling), human))
        if t + 1 < answers.tokens.shape[1]:
            logits, state = policy.step(columns[-1], state)
    policy.train(training)
    return torch.where(answers.action_mask, torch.stack(columns, 1), answers.tokens)


def _draw(logits: Float[Tensor, "B V"], t: int, sampling: Sampling) -> Int[Tensor, " B"]:
    position = torch.full((len(logits),), t, device=logits.device)
    return torch.multinomial(sampling.scale(logits, position).softmax(1), 1).squeeze(1)


def _refuse_schedule(schedule: Schedule, slope: float, k: float, every: int, start: int, floor: float) -> None:
    expected = [
        ("slope", slope, ">= 0", slope >= 0),
        ("k", k, "in (0, 1) for exponential", schedule != "exponential" or 0 < k < 1),
        ("k", k, ">= 1 for inverse_sigmoid", schedule != "inverse_sigmoid" or k >= 1),
        ("every", every, ">= 1", every >= 1),
        ("start", start, ">= 0", start >= 0),
        ("floor", floor, "in [0, 1]", 0 <= floor <= 1),
    ]
    for name, got, interval, holds in expected:
        if not holds:
            raise ValueError(f"ScheduledSampling: {name} is {got}; expected a number {interval}.")

"""Sub-trajectory balance: a policy that draws answers in proportion to a reward, learnt from anybody's episodes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrl_core.functional import masked_mean
from lrl_core.interfaces import Objective, Sampler
from lrl_core.sampling import Sampling
from lrl_core.types import Experience, Loss, PolicyOutput, RewardSignal, Rollout
from lrl_plugins.objectives.flow import (
    Balance,
    balance_loss,
    comparable,
    flow_gaps,
    span_weights,
    variance_count,
    variance_loss,
)
from lrl_plugins.objectives.shared import refuse_one_sample


@dataclass(frozen=True)
class Anneal:
    """A number that moves in a straight line over the first training steps and stays at its end.

    Args:
        start: At the first step; > 0.
        end: From step `steps` on; > 0.
        steps: How many steps it takes; >= 1.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if self.start <= 0 or self.end <= 0 or self.steps < 1:
            raise ValueError(f"Anneal: got {self}; expected start and end > 0 and steps >= 1. Correct them.")

    def at(self, step: Tensor) -> Float[Tensor, ""]:
        """The number after so many training steps."""
        return self.start + (self.end - self.start) * (step / self.steps).clamp(max=1)


class SubTB(Objective):
    """Makes answers as probable as their reward says, R^(1/T) / Z, by balancing the flows of prefixes (Hu et al. 2024).

    A GFlowNet over the tree of prefixes, each of which may be an answer. For every two prefixes of a line the squared
    difference between log F(z_1..i) + log q(z_i+1..j) and log F(z_1..j) is made small, where
    F(s) = R(s) / q(stop | s) (modified sub-trajectory balance: Madan et al. 2023; Deleu et al. 2022). It is 0 exactly
    where q draws answers in proportion to R^(1/T). Any episodes teach, without importance weights: tempered ones,
    replayed ones (Buffer), human answers. It needs a reward that judges every prefix in log R (`by_prefix`), such as
    LMPosterior, and no baseline.

    States are the places where the policy acts: what an environment said in between belongs to the state. The policy is
    read under its own distribution: tokens that are never drawn stay banned; temperature and truncation of the decoder
    do not count, its minimal length only with `variance`: elsewhere the reward of answers that are too short must be
    small (the floor of LMPosterior), which is slow to learn. Of an episode that was cut only the states in which the
    policy acted count; `variance` leaves such an episode out.

    Args:
        balance: `subtrajectory` balances all pairs of prefixes of a line, `detailed` neighbours alone, `trajectory` the
            empty answer and the whole one; `variance` (VarGrad) makes log q - log R equal among the answers of a
            prompt, reads the total reward alone and needs at least 2 samples.
        decay: Weight of a pair per prefix between the two, in [0, 1] (lambda); 1 weighs all pairs alike.
        forced_stop: What the end token at the length limit costs: `one` takes it as certain, as the decoder does with
            `constraints: {end_at_limit: true}`, so that the answers drawn are those of the posterior; `model` takes the
            policy's own probability.
        temperature: T: the policy learns R^(1/T). A number > 0, or start, end and steps of a straight line over the
            training steps.
    """

    compares = False
    steps: Tensor

    def __init__(
        self,
        balance: Balance = "subtrajectory",
        decay: float = 1.0,
        forced_stop: Literal["one", "model"] = "one",
        temperature: float | Anneal = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"SubTB: decay is {decay}; expected a number in [0, 1]. 1 weighs all pairs alike.")
        if not isinstance(temperature, Anneal) and temperature <= 0:
            raise ValueError(f"SubTB: temperature is {temperature}; expected a number > 0. 1 leaves rewards alone.")
        self.balance, self.decay, self.forced_stop, self.temperature = balance, decay, forced_stop, temperature
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def check(self, sampler: Sampler) -> None:
        if self.balance == "variance":
            refuse_one_sample("SubTB with balance: variance", sampler)
        if sampler.decoder.sampling is not None:
            self._check_sampling(sampler.decoder.sampling, sampler)

    def _check_sampling(self, sampling: Sampling, sampler: Sampler) -> None:
        name = type(sampler.decoder).__name__
        if sampling.eos is None or sampling.eos in sampling.banned:
            raise ValueError(
                f"SubTB: the decoder {name} never draws the end token ({sampling.eos}); expected one that may, because "
                "every prefix is weighed by log q(stop). Take the end token out of `banned`, or use a task that has "
                "one."
            )
        if self.forced_stop == "one" and sampler.decoder.draws and sampling.limit is None:
            raise ValueError(
                f"SubTB: got forced_stop: one and a decoder {name} that cuts episodes at its limit; expected one that "
                "ends them there with the end token. Set constraints: {end_at_limit: true} in the decoder, or "
                "forced_stop: model."
            )

    def learned(self, experience: Experience) -> None:
        if experience.rollout is not None:  # a warm-up on human answers is no step of the schedule
            self.steps += 1

    @property
    def reward_temperature(self) -> Float[Tensor, ""]:
        """T at the current training step."""
        if isinstance(self.temperature, Anneal):
            return self.temperature.at(self.steps)
        return torch.tensor(float(self.temperature), device=self.steps.device)

    def count(self, experience: Experience) -> Tensor:
        rollout = experience.rollout
        assert rollout is not None
        if self.balance == "variance":
            return variance_count(rollout.prompts.group, self._compared(experience))
        return span_weights(experience.learn_mask, self.balance, self.decay).sum()

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        rollout, reward, states = experience.rollout, experience.reward, experience.learn_mask
        assert rollout is not None
        assert reward is not None
        temperature = self.reward_temperature
        output = policy(self._own(rollout))
        log_pf = torch.where(states, output.logprobs, 0)
        whole = whole_gaps(log_pf, reward, temperature)
        if self.balance == "variance":
            _refuse_impossible(log_pf, "an action")
            total = variance_loss(whole, rollout.prompts.group, self._compared(experience))
        else:
            log_stop, log_r = output.log_stop, prefix_rewards(reward, rollout) / temperature
            _refuse_impossible(torch.where(states, log_stop, 0), "the end token")
            _refuse_impossible(log_pf, "an action")
            gaps = flow_gaps(log_pf, log_stop, log_r, states)
            total = balance_loss(gaps, span_weights(states, self.balance, self.decay))
        metrics = {
            "subtb/loss": total.detach() / self.count(experience).clamp(min=1e-8),
            "subtb/log_z": -masked_mean(whole.detach(), _whole(experience)),
            "subtb/temperature": temperature,
        }
        return Loss(total, metrics)

    def _own(self, rollout: Rollout) -> Rollout:
        """The episodes under the policy's own distribution."""
        sampling = rollout.sampling or Sampling()
        limit = sampling.limit if self.forced_stop == "one" else None
        # Pairs of prefixes need q(stop) everywhere; whole answers do not, and are those that can be drawn.
        shortest = sampling.min_length if self.balance == "variance" else 0
        own = replace(sampling, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, min_length=shortest, limit=limit)
        return replace(rollout, sampling=own)

    def _compared(self, experience: Experience) -> Bool[Tensor, " B"]:
        """The answers that `variance` compares."""
        assert experience.rollout is not None
        return comparable(experience.rollout.prompts.group, _whole(experience))


def whole_gaps(
    log_pf: Float[Tensor, "B T"], reward: RewardSignal, temperature: Float[Tensor, ""]
) -> Float[Tensor, " B"]:
    """Log q of each answer, its stop included, less its tempered log-reward; 0 - log q(answer) where unjudged.

    Args:
        log_pf: Log q of every action, 0 elsewhere.
        reward: Log R.
        temperature: T.
    """
    return log_pf.sum(1) - torch.where(reward.judged, reward.total, 0) / temperature


def prefix_rewards(reward: RewardSignal, rollout: Rollout) -> Float[Tensor, "B T"]:
    """Log R of stopping before each token; ValueError where the reward does not judge prefixes."""
    if reward.by_prefix is None:
        raise ValueError(
            "SubTB: the reward judges whole answers alone (RewardSignal.by_prefix is None); expected the log-reward of "
            "every prefix. Use a reward that gives it, such as LMPosterior, or balance: variance, which reads the "
            "total."
        )
    return reward.by_prefix[:, : rollout.tokens.shape[1]]


def _whole(experience: Experience) -> Bool[Tensor, " B"]:
    """Judged episodes that ended by themselves after at least one action."""
    assert experience.rollout is not None
    return experience.rollout.terminated & experience.learn_mask.any(1)


def _refuse_impossible(logprobs: Float[Tensor, "B T"], what: str) -> None:
    impossible = int(logprobs.detach().isneginf().sum())
    if impossible:
        raise ValueError(
            f"SubTB: {what} has probability 0 in {impossible} states; expected that it can be chosen wherever the "
            "policy acts, or flows are infinite. Take it out of the decoder's `banned`, use a policy with an end "
            "token, and no environment that closes it."
        )

"""MIXER: cross-entropy on a forced opening, policy gradient on what was drawn after it."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from lrl_core.functional import Aggregation, aggregate, aggregation_count, masked_mean
from lrl_core.interfaces import Objective, Sampler, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.types import Experience, Loss, PolicyOutput, Prompts, Rollout
from lrl_plugins.objectives.shared import (
    ratio_metrics,
    refuse_missing_length,
    refuse_no_draws,
    refuse_no_values,
    refuse_off_policy,
    value_loss,
)


class MIXER(Objective):
    """Cross-entropy on the human opening of each episode and REINFORCE on the rest (Ranzato 2016).

    Made for the decoder TeacherForced, which begins each episode with tokens of the human answer; a schedule there
    shortens the opening. Both parts are divided by the same count (tokens, or episodes), so that a token's weight
    does not depend on how long the opening is.

    Args:
        w: Weight of the cross-entropy, in [0, 1]; the policy gradient weighs 1 - w.
        value_weight: Weight of the squared error of the policy's value head, which is the paper's linear baseline
            (there 0.01); 0 for none.
        aggregation: How token losses become one number: token-mean, seq-mean-token-mean, seq-mean-token-sum or
            seq-mean-token-sum-norm.
        length: The constant of seq-mean-token-sum-norm, normally the decoder's max_length.
    """

    def __init__(
        self,
        w: float = 0.5,
        value_weight: float = 0.0,
        aggregation: Aggregation = "seq-mean-token-sum",
        length: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= w <= 1:
            raise ValueError(f"MIXER: w is {w}; expected a number in [0, 1].")
        refuse_missing_length(aggregation, length)
        self.w, self.value_weight, self.aggregation, self.length = w, value_weight, aggregation, length
        self.example: Prompts | None = None

    def bind(self, facts: TaskFacts) -> None:
        self.example = facts.example

    def check(self, sampler: Sampler) -> None:
        refuse_no_draws("MIXER", sampler)
        refuse_off_policy("MIXER", sampler)
        if self.value_weight > 0 and self.example is not None:
            refuse_no_values("MIXER", sampler.policy, self.example)

    def count(self, experience: Experience) -> Tensor:
        taught = experience.learn_mask | opening(experience)
        things = aggregation_count(taught, self.aggregation)
        return torch.stack([things, experience.learn_mask.sum().float()]) if self.value_weight > 0 else things

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        rollout, advantage = experience.rollout, experience.advantage
        assert rollout is not None
        assert advantage is not None
        forced, drawn = opening(experience), experience.learn_mask
        # The plain softmax, as for human answers, but without dropout: the rest of the episode is read without it too.
        human = policy(replace(rollout, action_mask=forced, sampling=Sampling())).logprobs
        output = policy(rollout)
        losses = torch.where(forced, -self.w * human, -(1 - self.w) * advantage.value * output.logprobs)
        total = aggregate(losses, forced | drawn, self.aggregation, self.length)
        metrics = ratio_metrics(output.logprobs, rollout, drawn) | {
            "cross_entropy": -masked_mean(human.detach(), forced),
            "entropy": masked_mean(output.entropy.detach(), drawn),
            "forced": masked_mean(forced.float(), forced | drawn),
        }
        if self.value_weight > 0:
            error = torch.where(drawn, value_loss("MIXER", output, advantage), 0)
            total = torch.stack([total, self.value_weight * error.sum()])
            metrics["value_loss"] = masked_mean(error.detach(), drawn)
        return Loss(total, metrics)


def opening(experience: Experience) -> Bool[Tensor, "B T"]:
    """The tokens before the policy's first choice, in episodes that the reward could judge."""
    rollout, reward = experience.rollout, experience.reward
    assert rollout is not None
    assert reward is not None
    before = rollout.action_mask.cumsum(1) == 0
    return before & length_mask(rollout.lengths, rollout.tokens.shape[1]) & reward.judged[:, None]

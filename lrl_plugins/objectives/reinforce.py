"""REINFORCE: the log-probability of what was said, weighted by how much better than expected it was."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lrl_core.functional import Aggregation, aggregate, aggregation_count, masked_mean, reward_to_go
from lrl_core.interfaces import Objective, Sampler
from lrl_core.types import Experience, Loss, PolicyOutput, Rollout
from lrl_plugins.objectives.shared import ratio_metrics, refuse_missing_length, refuse_no_draws, refuse_off_policy


class Reinforce(Objective):
    """The policy gradient -A_t log pi(y_t | y_<t, x) on fresh episodes (Williams 1992).

    With `seq-mean-token-sum` the expected gradient is exactly that of the expected reward.

    Args:
        aggregation: How token losses become one number: token-mean, seq-mean-token-mean, seq-mean-token-sum or
            seq-mean-token-sum-norm.
        entropy_bonus: Weight of the entropy that is rewarded; 0 for none.
        entropy: `analytic` adds the entropy of each step's distribution to the loss; `sampled` pays -log pi of every
            token as a reward, which also counts the entropy of later steps (maximum-entropy RL).
        length: The constant of seq-mean-token-sum-norm, normally the decoder's max_length.
    """

    def __init__(
        self,
        aggregation: Aggregation = "seq-mean-token-sum",
        entropy_bonus: float = 0.0,
        entropy: Literal["analytic", "sampled"] = "analytic",
        length: int | None = None,
    ) -> None:
        super().__init__()
        self.aggregation, self.entropy_bonus, self.entropy, self.length = aggregation, entropy_bonus, entropy, length
        refuse_missing_length(aggregation, length)

    def check(self, sampler: Sampler) -> None:
        refuse_no_draws("Reinforce", sampler)
        refuse_off_policy("Reinforce", sampler)

    def count(self, experience: Experience) -> Tensor:
        return aggregation_count(experience.learn_mask, self.aggregation)

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        rollout, advantage, mask = experience.rollout, experience.advantage, experience.learn_mask
        assert rollout is not None and advantage is not None
        output = policy(rollout)
        logprobs, entropy = output.logprobs, output.entropy
        weight = advantage.value
        losses = -self._entropy_bonus(entropy) - (weight + self._surprise(logprobs, mask)) * logprobs
        return Loss(
            aggregate(losses, mask, self.aggregation, self.length),
            {"entropy": masked_mean(entropy.detach(), mask)} | ratio_metrics(logprobs, rollout, mask),
        )

    def _entropy_bonus(self, entropy: Tensor) -> Tensor:
        return self.entropy_bonus * entropy if self.entropy == "analytic" else torch.zeros_like(entropy)

    def _surprise(self, logprobs: Tensor, mask: Tensor) -> Tensor:
        if self.entropy == "analytic" or self.entropy_bonus == 0:
            return torch.zeros_like(logprobs)
        return self.entropy_bonus * reward_to_go(-logprobs.detach(), mask)

"""A price on leaving the reference policy, with a coefficient that is fixed or follows a target."""

from typing import Literal

import torch
from torch import Tensor

from lrl_core.divergence import kl_estimate, log_ratio_by_episode
from lrl_core.interfaces import Reward, Sampler
from lrl_core.ranks import sum_over_ranks
from lrl_core.types import Experience, RewardSignal, Rollout

LARGEST_ERROR = 0.2
"""The relative error of the divergence is clipped to this before the coefficient follows it."""


def adapted_coefficient(coefficient: float, kl: float, target: float, episodes: int, horizon: float) -> float:
    """The next coefficient: beta (1 + clip(kl / target - 1, -0.2, 0.2) episodes / horizon) (Ziegler 2019, section 2.2).

    Args:
        coefficient: The present one, beta.
        kl: Measured divergence in nats per episode.
        target: Wanted divergence in nats per episode, > 0.
        episodes: How many episodes it was measured on.
        horizon: Over how many episodes the coefficient changes by its clipped relative error, at most a fifth.
    """
    error = min(max(kl / target - 1, -LARGEST_ERROR), LARGEST_ERROR)
    return coefficient * (1 + error * episodes / horizon)


class KLPenalty(Reward):
    """Pays -coefficient x divergence from the reference policy on every token (Ziegler 2019, eq. 2).

    Use it as a term of Sum beside the reward proper, with weight 1, and name a `model.reference`. It is logged as the
    penalty itself (`reward/<term>`); `kl/reference` is the divergence in nats per episode and
    `reward/<term>/coefficient` the coefficient.

    Args:
        coefficient: Price per nat, >= 0; where `target` is given, the one to start with.
        estimator: `k1` (log-ratio; unbiased), `k2` (half its square) or `k3` (unbiased, never negative).
        target: Divergence in nats per episode that the coefficient is steered to; None keeps it fixed.
        horizon: Episodes over which a coefficient that is steered changes by the divergence's relative error, of which
            at most a fifth counts.
    """

    coefficient: Tensor

    def __init__(
        self,
        coefficient: float = 0.05,
        estimator: Literal["k1", "k2", "k3"] = "k1",
        target: float | None = None,
        horizon: float = 10_000,
    ) -> None:
        super().__init__()
        if coefficient < 0 or horizon <= 0 or (target is not None and target <= 0):
            raise ValueError(
                f"KLPenalty: got coefficient {coefficient}, target {target}, horizon {horizon}; expected a coefficient "
                ">= 0 and a target and horizon > 0. Correct them in the recipe."
            )
        self.estimator, self.target, self.horizon = estimator, target, horizon
        self.register_buffer("coefficient", torch.tensor(coefficient, dtype=torch.float64))

    def check(self, sampler: Sampler) -> None:
        if sampler.reference is None:
            raise ValueError(
                "KLPenalty: the recipe names no reference policy to measure the distance from. Add model.reference: "
                "{path: null} for the policy as it is when reinforcement learning begins."
            )

    def score(self, rollout: Rollout) -> RewardSignal:
        if rollout.reference_logprobs is None:
            raise ValueError(
                "the episodes carry no reference log-probabilities; expected them from model.reference, which only "
                "training has. Leave this reward out when scoring files"
            )
        divergence = kl_estimate(rollout.logprobs, rollout.reference_logprobs, self.estimator)
        coefficient = self.coefficient.to(divergence.dtype)
        by_token = torch.where(rollout.action_mask, -coefficient * divergence, 0)
        total = by_token.sum(1)
        parts = {"penalty": total, "coefficient": coefficient.expand(len(rollout))}
        return RewardSignal(total, by_token=by_token, parts=parts)

    def learned(self, experience: Experience) -> None:
        """Steer the coefficient, alike on every rank."""
        if self.target is None:
            return
        rollout = experience.rollout
        local = torch.zeros(2, dtype=torch.float64, device=self.coefficient.device)
        if rollout is not None and rollout.reference_logprobs is not None:
            apart = log_ratio_by_episode(rollout.logprobs, rollout.reference_logprobs, rollout.action_mask)
            local[0], local[1] = apart.double().sum(), len(rollout)
        total, episodes = sum_over_ranks(local).tolist()
        if episodes > 0:
            kl = total / episodes
            now = float(self.coefficient)
            self.coefficient.fill_(adapted_coefficient(now, kl, self.target, int(episodes), self.horizon))

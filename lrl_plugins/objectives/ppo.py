"""Proximal policy optimisation and the family that its ratios, clips and means span."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lrl_core.divergence import KLEstimator, kl_estimate, log_ratio_by_episode
from lrl_core.functional import Aggregation, aggregate, aggregation_count, masked_mean
from lrl_core.interfaces import Objective, Sampler, TaskFacts
from lrl_core.types import Advantage, Experience, Loss, PolicyOutput, Prompts, Rollout
from lrl_plugins.objectives.ratios import RatioLevel, capped_loss, clipped_loss, importance_ratio
from lrl_plugins.objectives.shared import (
    ratio_metrics,
    refuse_missing_length,
    refuse_no_draws,
    refuse_no_values,
    value_loss,
)


class PPO(Objective):
    """The clipped policy gradient that lets several updates learn from the same episodes (Schulman 2017).

    GRPO, Dr. GRPO, DAPO, GSPO, CISPO, RLOO, ReMax and REINFORCE++ are this objective with other ratios, clips, means
    and baselines: take them as presets (`lrl recipes`). At the first update it is the policy gradient itself.

    Args:
        clip_low: A ratio below 1 - clip_low teaches no more where the advantage is negative; null for no limit.
        clip_high: A ratio above 1 + clip_high teaches no more where the advantage is positive; null for no limit.
        dual_clip: c > 1: where the advantage A is negative the loss is at most -c A (Ye 2020); null for no limit.
        ratio: `token` compares each token with the policy that drew it; `sequence-mean` the episode by the geometric
            mean over its tokens (GSPO; needs seq-mean-token-mean); `sequence-sum` the episode as a whole (RLOO;
            needs seq-mean-token-sum or seq-mean-token-sum-norm).
        form: `clip` takes the smaller of the plain and the clipped objective; `cispo` weighs log-probabilities by the
            clipped ratio, so that no token loses its gradient.
        cap: For cispo: the largest weight itself, in place of 1 + clip_high; null keeps 1 + clip_high.
        aggregation: How token losses become one number: token-mean, seq-mean-token-mean, seq-mean-token-sum or
            seq-mean-token-sum-norm. Entropy and KL are aggregated alike.
        length: The constant of seq-mean-token-sum-norm, normally the decoder's max_length.
        entropy_bonus: Weight of the entropy of each step's distribution, which is rewarded; 0 for none.
        value_weight: Weight of the squared error of the policy's value head, a mean over tokens; 0 for none.
        value_clip: How far a value may move from its first estimate before it stops to count; null for no limit.
        kl_weight: Weight of the divergence from the reference policy in the loss; 0 for none.
        kl_estimator: Its estimator: `k2` has the gradient of KL(policy || reference), `k3` that of
            KL(reference || policy) (GRPO's choice), `k3+` the value of k3 with the gradient of k2.
    """

    def __init__(
        self,
        clip_low: float | None = 0.2,
        clip_high: float | None = 0.2,
        dual_clip: float | None = None,
        ratio: RatioLevel = "token",
        form: Literal["clip", "cispo"] = "clip",
        cap: float | None = None,
        aggregation: Aggregation = "token-mean",
        length: int | None = None,
        entropy_bonus: float = 0.0,
        value_weight: float = 0.0,
        value_clip: float | None = None,
        kl_weight: float = 0.0,
        kl_estimator: KLEstimator = "k3",
    ) -> None:
        super().__init__()
        _refuse_numbers(clip_low, clip_high, dual_clip, cap, value_clip)
        _refuse_forms(form, dual_clip, cap)
        _refuse_aggregation(ratio, aggregation)
        _refuse_estimator(kl_weight, kl_estimator)
        refuse_missing_length(aggregation, length)
        self.lower = None if clip_low is None else 1 - clip_low
        self.upper = cap if cap is not None else None if clip_high is None else 1 + clip_high
        self.dual_clip, self.ratio, self.form = dual_clip, ratio, form
        self.aggregation, self.length, self.entropy_bonus = aggregation, length, entropy_bonus
        self.value_weight, self.value_clip = value_weight, value_clip
        self.kl_weight, self.kl_estimator = kl_weight, kl_estimator
        self.example: Prompts | None = None

    def bind(self, facts: TaskFacts) -> None:
        self.example = facts.example

    def check(self, sampler: Sampler) -> None:
        refuse_no_draws("PPO", sampler)
        if self.kl_weight > 0 and sampler.reference is None:
            raise ValueError(
                f"PPO: kl_weight is {self.kl_weight}, but the recipe names no reference policy. Expected "
                "model.reference, such as {path: null} for the policy as it is when reinforcement begins; add it, or "
                "set kl_weight to 0."
            )
        if self.value_weight > 0 and self.example is not None:
            refuse_no_values("PPO", sampler.policy, self.example)

    def count(self, experience: Experience) -> Tensor:
        mask = experience.learn_mask
        things = aggregation_count(mask, self.aggregation)
        return torch.stack([things, mask.sum().float()]) if self.value_weight > 0 else things

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        rollout, advantage, mask = experience.rollout, experience.advantage, experience.learn_mask
        assert rollout is not None
        assert advantage is not None
        output = policy(rollout)
        ratio = importance_ratio(output.logprobs, rollout.logprobs, mask, self.ratio)
        losses = self._surrogate(ratio, output.logprobs, advantage) - self.entropy_bonus * output.entropy
        metrics = self._watch(ratio.detach(), output, experience)
        if self.kl_weight > 0:
            divergence = kl_estimate(output.logprobs, _reference(rollout), self.kl_estimator)
            losses = losses + self.kl_weight * divergence
        total = aggregate(losses, mask, self.aggregation, self.length)
        if self.value_weight > 0:
            error = torch.where(mask, value_loss("PPO", output, advantage, self.value_clip), 0)
            total = torch.stack([total, self.value_weight * error.sum()])
            metrics["value_loss"] = masked_mean(error.detach(), mask)
        return Loss(total, metrics)

    def _surrogate(self, ratio: Tensor, logprobs: Tensor, advantage: Advantage) -> Tensor:
        if self.form == "cispo":
            return capped_loss(ratio, logprobs, advantage.value, self.lower, self.upper)
        return clipped_loss(ratio, advantage.value, self.lower, self.upper, self.dual_clip)

    def _watch(self, ratio: Tensor, output: PolicyOutput, experience: Experience) -> dict[str, Tensor]:
        """Numbers for the log: ratios, what the clip holds, entropy and how far the policy has moved."""
        rollout, advantage, mask = experience.rollout, experience.advantage, experience.learn_mask
        assert rollout is not None
        assert advantage is not None
        logprobs = output.logprobs.detach()
        low, high = ratio < (self.lower or 0), ratio > (torch.inf if self.upper is None else self.upper)
        if self.form == "clip":  # only there does the sign decide; a cap holds every weight
            low, high = low & (advantage.value < 0), high & (advantage.value > 0)
        metrics = ratio_metrics(logprobs, rollout, mask) | {
            "ratio/mean": masked_mean(ratio, mask),
            "clip/low": masked_mean(low.float(), mask),
            "clip/high": masked_mean(high.float(), mask),
            "kl/update": masked_mean(kl_estimate(rollout.logprobs, logprobs, "k3"), mask),
            "entropy": masked_mean(output.entropy.detach(), mask),
        }
        if rollout.reference_logprobs is not None:
            apart = log_ratio_by_episode(logprobs, rollout.reference_logprobs, mask)
            metrics["kl/reference"] = masked_mean(apart, mask.any(1))
        return metrics


def _reference(rollout: Rollout) -> Tensor:
    if rollout.reference_logprobs is None:
        raise ValueError(
            "PPO: kl_weight is above 0, but the episodes carry no reference_logprobs. Expected a recipe with "
            "model.reference; add it, or set kl_weight to 0."
        )
    return rollout.reference_logprobs


def _refuse_numbers(
    clip_low: float | None,
    clip_high: float | None,
    dual_clip: float | None,
    cap: float | None,
    value_clip: float | None,
) -> None:
    expected = {
        "clip_low": (clip_low, "a number in (0, 1]", clip_low is None or 0 < clip_low <= 1),
        "clip_high": (clip_high, "a number > 0", clip_high is None or clip_high > 0),
        "dual_clip": (dual_clip, "a number > 1", dual_clip is None or dual_clip > 1),
        "cap": (cap, "a number > 0", cap is None or cap > 0),
        "value_clip": (value_clip, "a number > 0", value_clip is None or value_clip > 0),
    }
    for name, (got, interval, holds) in expected.items():
        if not holds:
            raise ValueError(f"PPO: {name} is {got}; expected {interval}, or null.")


def _refuse_forms(form: str, dual_clip: float | None, cap: float | None) -> None:
    if form == "cispo" and dual_clip is not None:
        raise ValueError(
            f"PPO: dual_clip is {dual_clip} with form cispo, whose weights are capped anyway. Set dual_clip to null, "
            "or form to clip."
        )
    if form == "clip" and cap is not None:
        raise ValueError(f"PPO: cap is {cap} with form clip; it belongs to cispo. Set clip_high, or form to cispo.")


def _refuse_aggregation(ratio: RatioLevel, aggregation: Aggregation) -> None:
    fitting: dict[RatioLevel, tuple[Aggregation, ...]] = {
        "sequence-mean": ("seq-mean-token-mean",),
        "sequence-sum": ("seq-mean-token-sum", "seq-mean-token-sum-norm"),
    }
    if ratio in fitting and aggregation not in fitting[ratio]:
        raise ValueError(
            f"PPO: aggregation is {aggregation} with ratio {ratio}: episodes would be weighed by their length once too "
            f"often or once too little, against the ratio's own derivation. Expected {' or '.join(fitting[ratio])}; "
            "set it, or ratio to token."
        )


def _refuse_estimator(kl_weight: float, estimator: KLEstimator) -> None:
    if kl_weight < 0:
        raise ValueError(f"PPO: kl_weight is {kl_weight}; expected a number >= 0.")
    if kl_weight > 0 and estimator == "k1":
        raise ValueError(
            "PPO: kl_estimator is k1 in the loss, where its expected gradient is 0: it would hold nothing back. "
            "Expected k2, k3 or k3+; or leave kl_weight at 0 and put k1 into the reward with KLPenalty."
        )

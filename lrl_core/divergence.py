"""How far a policy is from a reference, token by token: estimators of the Kullback-Leibler divergence."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3", "k3+"]
"""Estimators of KL(policy || reference) from a token that the policy drew, with delta = log reference - log policy:

- `k1`: -delta. Unbiased, may be negative. As a loss its expected gradient is 0; it belongs into the reward.
- `k2`: delta^2 / 2. Biased, >= 0. As a loss its expected gradient is that of KL(policy || reference).
- `k3`: exp(delta) - 1 - delta. Unbiased, >= 0. As a loss its expected gradient is that of KL(reference || policy).
- `k3+`: the value of k3 with the gradient of k2.
"""

MAX_LOG_RATIO = 20.0
"""Differences of log-probabilities are held within this before they are exponentiated: exp(20) is about 5e8."""


def clamped_log_ratio(numerator: Float[Tensor, "*N"], denominator: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """The difference of two log-probabilities, held within `MAX_LOG_RATIO` so that its exponential is finite."""
    return (numerator - denominator).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def log_ratio_by_episode(
    logprobs: Float[Tensor, "B T"], reference: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, " B"]:
    """log policy - log reference of each episode's tokens together: unbiased for KL(policy || reference) in nats.

    Args:
        logprobs: Log-probability of each token under the policy that drew it.
        reference: The same under the reference.
        mask: Which tokens count.
    """
    return torch.where(mask, logprobs - reference, 0).sum(1)


def kl_estimate(
    logprobs: Float[Tensor, "*N"], reference: Float[Tensor, "*N"], estimator: KLEstimator = "k1"
) -> Float[Tensor, "*N"]:
    """Estimate KL(policy || reference) at each token, with gradients to `logprobs`; sum over an episode's tokens.

    Schulman 2020, "Approximating KL divergence". Mask the result: it means something on drawn tokens only.

    Args:
        logprobs: Log-probability of each token under the policy that drew it.
        reference: Log-probability of the same token under the reference, under the same temperature.
        estimator: See `KLEstimator`.
    """
    delta = reference - logprobs
    if estimator == "k1":
        return -delta
    if estimator == "k2":
        return delta.square() / 2
    if estimator == "k3":
        return _k3(reference, logprobs)
    if estimator == "k3+":
        k2 = delta.square() / 2
        return _k3(reference, logprobs).detach() + k2 - k2.detach()
    raise ValueError(f"kl_estimate: estimator is {estimator!r}; expected k1, k2, k3 or k3+.")


def _k3(reference: Float[Tensor, "*N"], logprobs: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    delta = clamped_log_ratio(reference, logprobs)
    return delta.expm1() - delta

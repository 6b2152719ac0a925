"""Flows on the tree of prefixes: how far a policy is from drawing answers in proportion to their reward.

Every prefix s may be an answer, so its flow needs no network: F(s) = R(s) / q(stop | s) (Deleu et al. 2022). A policy
whose flows agree along every line draws answers in proportion to R.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.functional import group_mean, group_sum

Balance = Literal["subtrajectory", "trajectory", "detailed", "variance"]
"""Which pairs of prefixes must agree: all of a line, its first and last, neighbours; or whole answers of a prompt."""


def flow_gaps(
    log_pf: Float[Tensor, "B T"],
    log_stop: Float[Tensor, "B T"],
    log_r: Float[Tensor, "B T"],
    states: Bool[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """Log q of coming to a state and stopping there, less its log-reward; 0 off the states.

    The difference of two gaps of a line is the bracket of the sub-trajectory loss between them (Hu et al. 2024, eq. 3):
    log R(s_i) + log q(s_j | s_i) + log q(stop | s_j) - log R(s_j) - log q(stop | s_i).

    Args:
        log_pf: Log q of the action taken in each state.
        log_stop: Log q of stopping there instead.
        log_r: Log R of stopping there, tempered; read at states only.
        states: Where the policy acts.
    """
    steps = torch.where(states, log_pf, 0)
    came = steps.cumsum(1) - steps  # before the action of the state itself, which may be the stop
    return torch.where(states, came + log_stop - log_r, 0)


def span_weights(states: Bool[Tensor, "B T"], balance: Balance, decay: float) -> Float[Tensor, "B T T"]:
    """Weight of each pair of states i < j of a line: decay^(j - i - 1), states counted; 0 for every other pair.

    Args:
        states: Where the policy acts.
        balance: `detailed` keeps neighbours alone, `trajectory` the first and last state alone, with weight 1.
        decay: Factor per state between the two, in [0, 1].
    """
    number = states.cumsum(1) - 1
    apart = number[:, None, :] - number[:, :, None]
    pairs = (states[:, None, :] & states[:, :, None] & (apart > 0)).float()
    if balance == "trajectory":
        return pairs * (apart == states.sum(1)[:, None, None] - 1)
    between = (apart - 1).clamp(min=0)
    return pairs * (0.0 if balance == "detailed" else decay) ** between  # 0 ** 0 is 1


def balance_loss(gaps: Float[Tensor, "B T"], weights: Float[Tensor, "B T T"]) -> Float[Tensor, ""]:
    """The weighted sum of squared differences of gaps (Madan et al. 2023; Hu et al. 2024, eq. 3)."""
    return (weights * (gaps[:, None, :] - gaps[:, :, None]).pow(2)).sum()


def comparable(group: Int[Tensor, " B"], whole: Bool[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """Which whole answers have another one of the same prompt beside them."""
    return whole & (group_sum(whole.float(), group) > 1)


def variance_loss(gaps: Float[Tensor, " B"], group: Int[Tensor, " B"], whole: Bool[Tensor, " B"]) -> Float[Tensor, ""]:
    """Squared deviations of log q - log R from their mean over a prompt's answers (VarGrad; Zhang et al. 2023).

    Divided by the number of answers less one per prompt, its gradient on the policy's own draws is on average twice
    that of KL(q || R / Z). A prompt with one answer adds nothing.

    Args:
        gaps: Log q of each answer, less its log-reward.
        group: Equal number = same prompt.
        whole: Answers that count.
    """
    return torch.where(whole, gaps - group_mean(gaps, group, whole), 0).pow(2).sum()


def variance_count(group: Int[Tensor, " B"], whole: Bool[Tensor, " B"]) -> Float[Tensor, ""]:
    """Answers less one, of every prompt that has any. Arguments as in `variance_loss`."""
    return whole.sum().float() - len(group[whole].unique())

"""Returns, means and aggregations: pure functions of tensors, each checked by hand-made numbers."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.masks import length_mask
from lrl_core.types import Advantage, RewardSignal, Rollout

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]
"""How per-token losses become one number (T_i = chosen tokens of episode i, N = episodes with at least one):

- `token-mean`: sum of all / sum of T_i (DAPO, self-critical captioning code).
- `seq-mean-token-mean`: mean over episodes of sum / T_i (original GRPO; biased where T_i depends on the episode).
- `seq-mean-token-sum`: mean over episodes of the sum: the unbiased policy gradient.
- `seq-mean-token-sum-norm`: the same over a constant length (Dr. GRPO): unbiased up to that constant.
"""


def masked_mean(values: Tensor, mask: Tensor) -> Float[Tensor, ""]:
    """Mean of the values where the mask is True; 0 where it is True nowhere."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def aggregate(
    losses: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], mode: Aggregation, length: int | None = None
) -> Float[Tensor, ""]:
    """The sum whose quotient by `aggregation_count` is the loss.

    Args:
        losses: One loss per token.
        mask: Which tokens count.
        mode: See `Aggregation`.
        length: The constant of seq-mean-token-sum-norm, normally the decoder's length limit.
    """
    by_episode = torch.where(mask, losses, 0).sum(1)
    if mode == "seq-mean-token-mean":
        by_episode = by_episode / mask.sum(1).clamp(min=1)
    if mode == "seq-mean-token-sum-norm":
        by_episode = by_episode / _constant(length)
    return by_episode.sum()


def aggregation_count(mask: Bool[Tensor, "B T"], mode: Aggregation) -> Float[Tensor, ""]:
    """How many things `aggregate` sums over: tokens for token-mean, else episodes with at least one such token."""
    return mask.sum().float() if mode == "token-mean" else mask.any(1).sum().float()


def _constant(length: int | None) -> int:
    if length is None or length < 1:
        raise ValueError(f"seq-mean-token-sum-norm divides by a constant length; got {length!r}, give a number >= 1.")
    return length


def reward_to_go(
    increments: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], gamma: float = 1.0
) -> Float[Tensor, "B T"]:
    """G_t = sum over u >= t of gamma^(u-t) r_u, over masked tokens only (methods: Williams 1992).

    Args:
        increments: r_t, what each token earned.
        mask: Real tokens; increments elsewhere are not counted.
        gamma: Discount per token, in [0, 1].
    """
    earned = torch.where(mask, increments, 0)
    if gamma == 1:
        return earned.flip(1).cumsum(1).flip(1)
    result = torch.empty_like(earned)
    running = earned.new_zeros(earned.shape[0])
    for t in range(earned.shape[1] - 1, -1, -1):
        running = earned[:, t] + gamma * running
        result[:, t] = running
    return result


def generalised_advantage(
    increments: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    gamma: float = 1.0,
    lam: float = 1.0,
    bootstrap: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, "B T"]:
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t (Schulman 2016, eq. 16).

    V after the last masked token is `bootstrap` (0 where None: the episode ended). Tokens off the mask (padding, an
    environment's words) are stepped over: the next state of a token is that of the next masked one.

    Args:
        increments: r_t.
        values: V(s_t), the state before token t.
        mask: Tokens with a value.
        gamma: Discount per token, in [0, 1].
        lam: Trade-off between bias (0) and variance (1).
        bootstrap: Value after the end, for episodes that were cut.
    """
    advantage = torch.zeros_like(values)
    next_value = values.new_zeros(values.shape[0]) if bootstrap is None else bootstrap
    running = values.new_zeros(values.shape[0])
    for t in range(values.shape[1] - 1, -1, -1):
        here = mask[:, t]
        delta = increments[:, t] + gamma * next_value - values[:, t]
        running = torch.where(here, delta + gamma * lam * running, running)
        next_value = torch.where(here, values[:, t], next_value)
        advantage[:, t] = torch.where(here, running, 0)
    return advantage


def group_index(group: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], int]:
    """Consecutive numbers 0..n-1 in place of group names, and n."""
    names, index = group.unique(return_inverse=True)
    return index, names.shape[0]


def leave_one_out_mean(
    values: Float[Tensor, " B"], group: Int[Tensor, " B"], judged: Bool[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Mean of the other judged values of the same group; the value itself where there is no other."""
    index, groups = group_index(group)
    known = torch.where(judged, values, 0)
    total = values.new_zeros(groups).index_add(0, index, known)[index] - known
    others = values.new_zeros(groups).index_add(0, index, judged.to(values.dtype))[index] - judged.to(values.dtype)
    return torch.where(others > 0, total / others.clamp(min=1), known)


def compared_with(baseline: Tensor, rollout: Rollout, reward: RewardSignal) -> Advantage:
    """Credit minus baseline on the tokens that teach, 0 elsewhere: what every baseline returns.

    A token is credited with the reward to go where increments are known (`by_token`), else with the whole reward.

    Args:
        baseline: One number per episode [B] or per token [B T].
        rollout: The episodes.
        reward: Their rewards; unjudged rows get advantage 0.
    """
    if reward.by_token is None:
        credit = reward.total[:, None].expand(rollout.tokens.shape)
    else:
        credit = reward_to_go(reward.by_token, length_mask(rollout.lengths, rollout.tokens.shape[1]))
    difference = credit - (baseline[:, None] if baseline.dim() == 1 else baseline)
    teaches = rollout.action_mask & reward.judged[:, None] & difference.isfinite()
    return Advantage(torch.where(teaches, difference, 0))

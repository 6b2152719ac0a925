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


def by_group(
    values: Float[Tensor, " B"], group: Int[Tensor, " B"], judged: Bool[Tensor, " B"]
) -> dict[int, list[float]]:
    """The judged values of each group, in order of appearance; [] for a group without any."""
    found: dict[int, list[float]] = {}
    for name, value, counts in zip(group.tolist(), values.tolist(), judged.tolist(), strict=True):
        found.setdefault(name, []).extend([value] if counts else [])
    return found


def group_sum(values: Float[Tensor, " B"], group: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Sum over the rows of the same group, given to each of them."""
    index, groups = group_index(group)
    return values.new_zeros(groups).index_add(0, index, values)[index]


def group_mean(
    values: Float[Tensor, " B"],
    group: Int[Tensor, " B"],
    judged: Bool[Tensor, " B"],
    weights: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, " B"]:
    """Mean of the judged values of the same group, given to each row; 0 where there are none.

    Args:
        values: One number per row.
        group: Equal number = same group.
        judged: Which values count.
        weights: How much each counts, >= 0; None: all alike.
    """
    counts = torch.where(judged, torch.ones_like(values) if weights is None else weights.to(values.dtype), 0)
    weight = group_sum(counts, group)
    total = group_sum(torch.where(judged, values, 0) * counts, group)
    return torch.where(weight > 0, total / weight, 0)


def group_std(values: Float[Tensor, " B"], group: Int[Tensor, " B"], judged: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Standard deviation (over n - 1) of the judged values of the same group; 0 where there are fewer than two."""
    squares = torch.where(judged, values - group_mean(values, group, judged), 0).pow(2)
    count = group_sum(judged.to(values.dtype), group)
    return (group_sum(squares, group) / (count - 1).clamp(min=1)).sqrt()


def leave_one_out_mean(
    values: Float[Tensor, " B"], group: Int[Tensor, " B"], judged: Bool[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Mean of the other judged values of the same group; the value itself where there is no other."""
    known, counts = torch.where(judged, values, 0), judged.to(values.dtype)
    total = group_sum(known, group) - known
    others = group_sum(counts, group) - counts
    return torch.where(others > 0, total / others.clamp(min=1), known)


def credit(rollout: Rollout, reward: RewardSignal) -> Float[Tensor, "B T"]:
    """What each token is credited with: the reward to go where increments are known, else the whole reward."""
    if reward.by_token is None:
        return reward.total[:, None].expand(rollout.tokens.shape)
    return reward_to_go(reward.by_token, length_mask(rollout.lengths, rollout.tokens.shape[1]))


def token_rewards(rollout: Rollout, reward: RewardSignal) -> Float[Tensor, "B T"]:
    """What each chosen token earned: its increment, or the whole reward on the last one; 0 on all other tokens.

    What stands on an environment's word was earned by the chosen token before it. Unjudged rows earn 0.
    """
    steps = torch.arange(rollout.tokens.shape[1], device=rollout.tokens.device)
    paid = reward.by_token
    if paid is None:
        paid = torch.where(steps == rollout.lengths[:, None] - 1, reward.total[:, None], 0)
    real = length_mask(rollout.lengths, rollout.tokens.shape[1]) & reward.judged[:, None]
    chosen = torch.where(rollout.action_mask, steps, -1).cummax(1).values  # the last chosen token so far
    earned = torch.where(real & (chosen >= 0), paid, 0)
    return torch.zeros_like(earned).scatter_add(1, chosen.clamp(min=0), earned)


def squared_error(
    values: Float[Tensor, "B T"],
    targets: Float[Tensor, "B T"],
    before: Float[Tensor, "B T"] | None = None,
    clip: float | None = None,
) -> Float[Tensor, "B T"]:
    """1/2 (V - G)^2, or the larger of it and the same with V held within `clip` of what it was (Schulman 2017, PPO).

    Args:
        values: V, what a critic predicts now.
        targets: G, what it should predict.
        before: What it predicted when the episodes were collected.
        clip: How far it may move; None for no limit.
    """
    error = (values - targets).pow(2)
    if clip is not None and before is not None:
        held = values.clamp(before - clip, before + clip)
        error = torch.maximum(error, (held - targets).pow(2))
    return error / 2


def compared_with(baseline: Tensor, rollout: Rollout, reward: RewardSignal) -> Advantage:
    """Credit minus baseline on the tokens that teach, 0 elsewhere: what every baseline returns.

    A token is credited with the reward to go where increments are known (`by_token`), else with the whole reward.

    Args:
        baseline: One number per episode [B] or per token [B T].
        rollout: The episodes.
        reward: Their rewards; unjudged rows get advantage 0.
    """
    difference = credit(rollout, reward) - (baseline[:, None] if baseline.dim() == 1 else baseline)
    teaches = rollout.action_mask & reward.judged[:, None] & difference.isfinite()
    return Advantage(torch.where(teaches, difference, 0))

"""Imitation by matching occupancies: what a policy's own logits say that an action is worth, and convex divergences.

A state s is the line so far and an action a the next token. One set of logits l(a|s) is at once the policy (its
softmax), the value of a state, V(s) = logsumexp l(.|s), and a reward r(s, a) = l(a|s) - gamma V(s'), where s' is the
state after a (Garg et al. 2021, IQ-Learn, arXiv 2106.12142).
"""

import math
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Divergence: TypeAlias = Literal["chi2_mixture", "chi2", "kl", "js", "hellinger", "linear"]
"""Which distance between the occupancies of data and model is made small; see `phi`."""

STEEPEST = 20.0
"""Largest slope of `phi`: further down, where its formula would overflow or end, it goes on as a straight line."""


class Steps(NamedTuple):
    """What each chosen token is worth to the logits themselves; meaningful where a token was chosen."""

    reward: Float[Tensor, "B T"]
    """r = l(a|s) - gamma V(s')."""
    drop: Float[Tensor, "B T"]
    """V(s) - gamma V(s'); summed along a line with weights gamma^t only the value of its beginning is left."""
    known: Bool[Tensor, "B T"]
    """True where a token was chosen and V(s') is known: not on the last choice of an episode that a limit cut."""


def steps(
    logits: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    chosen: Bool[Tensor, "B T"],
    terminated: Bool[Tensor, " B"],
    discount: float,
    skipped: Bool[Tensor, "B T"] | None = None,
    repeats: Bool[Tensor, " B"] | None = None,
) -> Steps:
    """Rewards and value differences of lines; nothing that stands off `chosen` has an influence.

    The state after a token is that before the next chosen one: what others say in between belongs to it.

    Args:
        logits: l(a|s) of the tokens.
        values: V(s) before them.
        chosen: Which tokens the policy chose.
        terminated: Which lines ended by themselves; V is 0 after their last token.
        discount: gamma.
        skipped: Chosen tokens before which stands another state than the one that the choice before led to.
        repeats: Terminated lines whose last token is repeated for ever: the only action of a state whose value is then
            that token's logit; None for none.
    """
    width = chosen.shape[1]
    places = torch.arange(width, device=chosen.device).expand(chosen.shape)
    counts = chosen if skipped is None else chosen & ~skipped
    onward = places.masked_fill(~counts, width).flip(1).cummin(1).values.flip(1)
    following = torch.nn.functional.pad(onward[:, 1:], (0, 1), value=width)
    ends = following == width
    again = ends & (torch.zeros_like(terminated) if repeats is None else repeats)[:, None]
    worth = torch.where(again, logits, values)
    after = torch.where(again, worth, torch.nn.functional.pad(worth, (0, 1)).gather(1, following))
    return Steps(logits - discount * after, worth - discount * after, chosen & (~ends | terminated[:, None]))


def discounts(chosen: Bool[Tensor, "B T"], discount: float) -> Float[Tensor, "B T"]:
    """gamma^t where t tokens of the line were chosen before; 0 where none was chosen."""
    before = chosen.cumsum(1) - 1
    return torch.where(chosen, discount ** before.clamp(min=0).float(), 0)


def phi(reward: Float[Tensor, " *any"], divergence: Divergence, alpha: float = 0.5) -> Float[Tensor, " *any"]:
    """The concave function of the data's rewards that stands for a divergence; phi(0) has slope 1.

    kl -e^-r, js log(2 - e^-r), hellinger r / (1 + r), chi2 r - r^2 / (4 alpha) (Garg et al. 2021), and r for
    linear and for chi2_mixture, whose square is taken over data and model. From where its slope is STEEPEST downwards
    kl, js and hellinger go on as straight lines.

    Args:
        reward: r of the data.
        divergence: Which.
        alpha: Of chi2: the larger, the larger rewards may be.
    """
    if divergence in ("linear", "chi2_mixture"):
        return reward
    if divergence == "chi2":
        return reward - reward.square() / (4 * alpha)
    lowest = _steepest_at(divergence)
    inside = reward.clamp(min=lowest)
    below = STEEPEST * (reward - inside)
    if divergence == "kl":
        return -(-inside).exp() + below
    return below + ((2 - (-inside).exp()).log() if divergence == "js" else inside / (1 + inside))


def _steepest_at(divergence: Divergence) -> float:
    """Where the slope of `phi` is STEEPEST."""
    if divergence == "kl":
        return -math.log(STEEPEST)
    return -math.log(2 * STEEPEST / (1 + STEEPEST)) if divergence == "js" else STEEPEST**-0.5 - 1

"""Importance ratios of tokens and of episodes, and the two ways to hold them near 1."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrl_core.divergence import MAX_LOG_RATIO, clamped_log_ratio

RatioLevel = Literal["token", "sequence-mean", "sequence-sum"]
"""What one importance ratio is about:

- `token`: pi / pi_old of each token (PPO, GRPO).
- `sequence-mean`: its geometric mean over the episode (GSPO).
- `sequence-sum`: its product over the episode, the ratio of the whole episode (RLOO).
"""


def importance_ratio(
    logprobs: Float[Tensor, "B T"], old: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], level: RatioLevel
) -> Float[Tensor, "B T"]:
    """The ratio that belongs to each token; summed over an episode, its gradients are those of the level's objective.

    A ratio of an episode stands on each of its tokens with the gradient of that token alone:
    stop(s_i) pi_t / stop(pi_t) (Zheng 2025, GSPO-token).

    Args:
        logprobs: Under the policy, with gradients.
        old: Under the distribution that the tokens were drawn from.
        mask: Tokens of the episode that count.
        level: See `RatioLevel`.
    """
    if level == "token":
        return clamped_log_ratio(logprobs, old).exp()
    of_episode = torch.where(mask, (logprobs - old).detach(), 0).sum(1, keepdim=True)
    if level == "sequence-mean":
        of_episode = of_episode / mask.sum(1, keepdim=True).clamp(min=1)
    return (of_episode.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO) + logprobs - logprobs.detach()).exp()


def clipped_loss(
    ratio: Float[Tensor, "B T"],
    advantage: Float[Tensor, "B T"],
    lower: float | None,
    upper: float | None,
    dual: float | None = None,
) -> Float[Tensor, "B T"]:
    """-min(r A, clip(r) A), per token (Schulman 2017, eq. 7), with the second clip of Ye 2020 (dual-clip PPO).

    Args:
        ratio: r, with gradients.
        advantage: A.
        lower: The least ratio that still teaches where A < 0; None for none.
        upper: The largest ratio that still teaches where A > 0; None for none.
        dual: c > 1: where A < 0 the loss is at most -c A; None for no limit.
    """
    held = ratio if lower is None and upper is None else ratio.clamp(lower, upper)
    loss = torch.maximum(-ratio * advantage, -held * advantage)
    if dual is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -dual * advantage), loss)


def capped_loss(
    ratio: Float[Tensor, "B T"],
    logprobs: Float[Tensor, "B T"],
    advantage: Float[Tensor, "B T"],
    lower: float | None,
    upper: float | None,
) -> Float[Tensor, "B T"]:
    """-stop(clip(r)) A log pi: a held weight, and no token loses its gradient (MiniMax 2025, CISPO).

    Args:
        ratio: r.
        logprobs: log pi, with gradients.
        advantage: A.
        lower: The least weight; None for no limit.
        upper: The largest weight; None for no limit.
    """
    weight = ratio.detach()
    if lower is not None or upper is not None:
        weight = weight.clamp(lower, upper)
    return -weight * advantage * logprobs

"""Scoring a batch text by text: equal questions are asked once."""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lrl_core.interfaces import Reward
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.texts import texts_and_references, texts_of

Key = TypeVar("Key", bound=Hashable)

NAN = float("nan")
"""What a reward says of an episode that it cannot judge."""


def each_text(reward: Reward, rollout: Rollout, score: Callable[[str], float]) -> Float[Tensor, " B"]:
    """`score(text)` of every episode.

    Args:
        reward: Who asks, for error messages.
        rollout: The episodes.
        score: Called once for each different text.
    """
    return as_row(once(texts_of(reward, rollout), score), rollout)


def each_against_references(
    reward: Reward, rollout: Rollout, score: Callable[[str, tuple[str, ...]], float]
) -> Float[Tensor, " B"]:
    """`score(text, references)` of every episode; NaN where a prompt has no references.

    Args:
        reward: Who asks, for error messages.
        rollout: The episodes.
        score: Called once for each different pair, with at least one reference.
    """
    pairs = ((text, references) for text, _, references in texts_and_references(reward, rollout))
    return as_row(once(pairs, lambda pair: score(*pair) if pair[1] else NAN), rollout)


def as_row(scores: list[float], rollout: Rollout) -> Float[Tensor, " B"]:
    """The numbers as a tensor beside the episodes.

    Args:
        scores: One per episode.
        rollout: The episodes.
    """
    return torch.tensor(scores, dtype=torch.float32, device=rollout.tokens.device)


def under(name: str, total: Float[Tensor, " B"]) -> RewardSignal:
    """A signal whose only part is the whole.

    Args:
        name: The part's name in the logs.
        total: The rewards.
    """
    return RewardSignal(total, parts={name: total})


def once(keys: Iterable[Key], score: Callable[[Key], float]) -> list[float]:
    """The number of every key, computed once for each different one.

    Args:
        keys: What is asked, one per episode.
        score: Called once for each different key.
    """
    known: dict[Key, float] = {}
    scores = []
    for key in keys:
        if key not in known:
            known[key] = score(key)
        scores.append(known[key])
    return scores

"""Scoring a batch text by text: equal questions are asked once."""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrl_core.interfaces import Reward
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.texts import texts_and_references, texts_of, tokenised

Key = TypeVar("Key", bound=Hashable)
References: TypeAlias = tuple[str, ...]
"""The human answers of a prompt."""
ScoreAll: TypeAlias = Callable[
    [list[list[str]], list[References], Callable[[References], list[list[str]]]], Float[np.ndarray, " N"]
]
"""From the words of texts, their references, and what gives the words of references, to one number per text."""

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
    different, which = distinct(keys)
    scores = [score(key) for key in different]
    return [scores[i] for i in which]


def distinct(keys: Iterable[Key]) -> tuple[list[Key], list[int]]:
    """The different keys in the order they come, and for every key which of them it is.

    Args:
        keys: What is asked, one per episode.
    """
    numbers: dict[Key, int] = {}
    which = [numbers.setdefault(key, len(numbers)) for key in keys]
    return list(numbers), which


def all_against_references(
    reward: Reward,
    rollout: Rollout,
    eos: bool,
    score: Callable[
        [list[list[str]], list[References], Callable[[References], list[list[str]]]], Float[np.ndarray, " N"]
    ],
) -> Float[Tensor, " B"]:
    """As `each_against_references` for what scores tokenised texts all at once; the end token may count as a word.

    Args:
        reward: Who asks, for error messages.
        rollout: The episodes.
        eos: Whether the end token counts, in references and in episodes that ended by themselves.
        score: Called once for all different pairs of a text and at least one reference.
    """
    rows = ((text, eos and ended, own) for text, ended, own in texts_and_references(reward, rollout))
    different, which = distinct(rows)
    judged = [row for row in different if row[2]]
    said = [tokenised(text, ended) for text, ended, _ in judged]
    scores = np.full(len(different), NAN)
    scores[[bool(own) for _, _, own in different]] = score(
        said, [own for _, _, own in judged], lambda own: [tokenised(text, eos) for text in own]
    )
    return as_row(scores[which].tolist(), rollout)

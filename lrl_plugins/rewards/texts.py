"""What the rewards that compare texts have in common: getting at the texts and their references."""

from collections.abc import Iterable

from lrl_core.interfaces import Reward
from lrl_core.metrics.ptb import ptb_words
from lrl_core.types import Rollout

END = "<eos>"
"""Stands for the end token among words; a text that spells it out does not get it."""


def texts_of(reward: Reward, rollout: Rollout) -> tuple[str, ...]:
    """The text of every episode.

    Args:
        reward: Who asks, for the error message.
        rollout: The episodes.
    """
    if rollout.texts is None:
        raise ValueError(
            f"{type(reward).__name__} got a rollout without texts; expected one text per episode. "
            "Decode the tokens first: replace(rollout, texts=...)."
        )
    return rollout.texts


def texts_and_references(reward: Reward, rollout: Rollout) -> Iterable[tuple[str, bool, tuple[str, ...]]]:
    """For every episode: its text, whether it ended by itself, and its references; () where it has none.

    Args:
        reward: Who asks, for the error message.
        rollout: The episodes.
    """
    texts = texts_of(reward, rollout)
    if rollout.prompts.references is None:
        raise ValueError(
            f"{type(reward).__name__} got prompts without references; expected the human answers of every prompt. "
            "Use a task with references (Captioning, for one), or a reward that needs none."
        )
    references = (row or () for row in rollout.prompts.references)
    return zip(texts, rollout.terminated.tolist(), references, strict=True)


def tokenised(text: str, ended: bool) -> list[str]:
    """Words of a text as the COCO caption evaluation counts them, with END after them where it ended by itself.

    Args:
        text: What was said.
        ended: Whether END is wanted.
    """
    words = ptb_words(text)
    if END in words:
        words = [word for word in words if word != END]
    return [*words, END] if ended else words

"""Columns of the examples as token ids: what a language model reads before and after an episode."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Prompts

Ids = tuple[int, ...]
"""A text in the task's vocabulary."""


class Columns:
    """Encodes the texts that stand around episodes, each text once.

    Args:
        tokenizer: The task's.
        before: Column of the text before an episode; None: the prompt's own tokens.
        after: Column of the text after it; None: nothing.
        ends: Whether the end token closes what stands after.
        labels: All texts that may stand after, of which `after` names the right one; None: no others.
    """

    def __init__(
        self, tokenizer: Tokenizer, before: str | None, after: str | None, ends: bool, labels: Sequence[str] | None
    ) -> None:
        self.tokenizer, self.before, self.after, self.labels = tokenizer, before, after, labels
        self.end: Ids = (tokenizer.eos,) if ends else ()
        self._known: dict[str, Ids] = {}

    def check(self, prompts: Prompts) -> None:
        """Refuse prompts without the columns; ValueError."""
        for column in (self.before, self.after):
            if column is not None:
                self._texts(prompts, column)
        self.right(prompts)

    def known(self, prompts: Prompts) -> Bool[Tensor, " B"]:
        """False where a column is null or what should follow is no token at all: nothing can be said of such a row."""
        columns = [self._texts(prompts, column) for column in (self.before, self.after) if column is not None]
        rows = [all(text is not None for text in texts) for texts in zip(*columns, strict=True)]
        if self.after is not None:
            rows = [there and all(tails) for there, tails in zip(rows, self.tails(prompts), strict=True)]
        everywhere = torch.ones_like(prompts.lengths, dtype=torch.bool)
        return torch.tensor(rows, device=everywhere.device).to(everywhere) if rows else everywhere

    def prompts(self, prompts: Prompts) -> Prompts:
        """What stands before each episode, as prompts; those that are the same are of one group."""
        if self.before is None:
            return prompts
        lines = [self._ids(text) for text in self._texts(prompts, self.before)]
        groups: dict[tuple[int, Ids], int] = {}
        numbers = [groups.setdefault(key, len(groups)) for key in zip(prompts.group.tolist(), lines, strict=True)]
        longest, device = max(map(len, lines), default=0), prompts.lengths.device
        filled = [[*line, *[max(self.tokenizer.pad, 0)] * (longest - len(line))] for line in lines]
        return replace(
            prompts,
            tokens=torch.tensor(filled, device=device, dtype=torch.long).view(len(lines), longest),
            lengths=torch.tensor([len(line) for line in lines], device=device, dtype=torch.long),
            group=torch.tensor(numbers, device=device, dtype=torch.long),
        )

    def tails(self, prompts: Prompts) -> tuple[tuple[Ids, ...], ...]:
        """What may stand after each episode: nothing, the one text, or every label."""
        if self.after is None:
            return ((),) * len(prompts)
        if self.labels is not None:
            return (tuple(self._ids(label) + self.end for label in self.labels),) * len(prompts)
        return tuple((self._ids(text) + self.end,) for text in self._texts(prompts, self.after))

    def right(self, prompts: Prompts) -> Int[Tensor, " B"]:
        """Which of the tails is the right one."""
        if self.labels is None or self.after is None:
            return torch.zeros_like(prompts.lengths)
        texts = self._texts(prompts, self.after)
        strange = sorted({text for text in texts if text is not None and text not in self.labels})
        if strange:
            raise ValueError(
                f"LMPosterior: got {strange[0]!r} in column {self.after!r}; expected one of the labels "
                f"{list(self.labels)}, letter by letter. Correct the labels or the data."
            )
        places = [0 if text is None else self.labels.index(text) for text in texts]
        return torch.tensor(places, device=prompts.lengths.device, dtype=torch.long)

    def tokens_read(self, lengths: Int[Tensor, " B"], prompts: Prompts) -> Int[Tensor, " B"]:
        """How many log-probabilities a finished episode's value adds up.

        Args:
            lengths: Words per episode.
            prompts: Theirs.
        """
        if self.after is None:
            return lengths + 1
        right = self.right(prompts).tolist()
        after = [len(tails[place]) for tails, place in zip(self.tails(prompts), right, strict=True)]
        return lengths + torch.tensor(after, device=lengths.device, dtype=lengths.dtype)

    def _ids(self, text: str | None) -> Ids:
        """A null text is read as the end token alone, and what is said of it is dropped."""
        if text is None:
            return (self.tokenizer.eos,)
        if text not in self._known:
            self._known[text] = tuple(self.tokenizer.encode(text))
        return self._known[text]

    def _texts(self, prompts: Prompts, column: str) -> list[str | None]:
        if len(prompts.examples) != len(prompts):
            raise ValueError(
                f"LMPosterior: got {len(prompts.examples)} examples for {len(prompts)} prompts; expected one each, to "
                f"read column {column!r}. Use a task whose prompts carry their rows as loaded."
            )
        return [self._text(example, column) for example in prompts.examples]

    def _text(self, example: dict[str, Any], column: str) -> str | None:
        if column not in example:
            raise ValueError(
                f"LMPosterior: got an example without column {column!r}; expected one in each. Columns there: "
                f"{sorted(example)}. Name one of these, or add it to the data."
            )
        text = example[column]
        if text is not None and not isinstance(text, str):
            raise ValueError(
                f"LMPosterior: got {text!r} of type {type(text).__name__} in column {column!r}; expected a text or "
                "null. Write it as text in the data."
            )
        return text

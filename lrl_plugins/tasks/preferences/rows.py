"""The comparisons of one split as data set rows, and how a list of them becomes `Prompts`."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch.utils.data import Dataset

from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Prompts
from lrl_plugins.tasks.padding import padded
from lrl_plugins.tasks.preferences.sources import Ranked
from lrl_plugins.tasks.text.layout import Layout
from lrl_plugins.tasks.turns import in_turn

Answers: TypeAlias = Literal["ranked", "best"]
"""Which candidates a prompt is shown with: all of them, or one of the best."""


@dataclass(frozen=True)
class Candidate:
    """One prompt with one of its candidate answers."""

    ranked: Ranked
    """The comparison as loaded."""
    group: int
    """Its number, unique over all splits."""
    tokens: tuple[int, ...]
    """What is asked, template included."""
    text: str
    """The answer."""
    target: tuple[int, ...]
    """The answer's tokens, EOS included."""
    references: tuple[str, ...]
    """What a reward compares with: this answer, or all the best ones."""
    rank: int | None
    """0 the best; None where only a best answer is shown."""


class RankedRows(Dataset[list[Candidate]]):
    """The comparisons of one split; entry (comparison, epoch) holds its rows in that epoch, the best one first.

    Args:
        items: The comparisons.
        first_group: Group number of the first one.
        tokenizer: Makes tokens of prompts and of answers.
        layout: How a prompt is worded and cut.
        max_length: Longest target in tokens, EOS counted.
        answers: All candidates, or one of the best.
        turns: Whether the best of a tie take turns from epoch to epoch; else it is always the first.
        seed: Of the order in which they do.
    """

    def __init__(
        self,
        items: list[Ranked],
        first_group: int,
        tokenizer: Tokenizer,
        layout: Layout,
        max_length: int,
        answers: Answers,
        turns: bool,
        seed: int,
    ) -> None:
        self.items, self.first_group, self.tokenizer, self.layout = items, first_group, tokenizer, layout
        self.max_length, self.answers, self.turns, self.seed = max_length, answers, turns, seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> list[Candidate]:
        index, epoch = key
        item, group = self.items[index], self.first_group + index
        tokens = self.layout.tokens(item.example, self.tokenizer)
        if self.answers == "best":
            (text,) = in_turn(item.best, epoch, 1 if self.turns else None, f"answers/{self.seed}/{index}")
            return [Candidate(item, group, tokens, text, self._target(text), item.best, None)]
        texts = ((item.candidates[i], item.ranks[i]) for i in item.order)
        return [Candidate(item, group, tokens, text, self._target(text), (text,), rank) for text, rank in texts]

    def _target(self, answer: str) -> tuple[int, ...]:
        return (*self.tokenizer.encode(answer)[: self.max_length - 1], self.tokenizer.eos)


def collate(comparisons: list[list[Candidate]], pad: int) -> Prompts:
    """A batch with one row per candidate, those of one comparison next to each other.

    Args:
        comparisons: The rows of each comparison; all with ranks, or none.
        pad: Token id that fills lines.
    """
    rows = [row for own in comparisons for row in own]
    tokens, lengths = padded([row.tokens for row in rows], pad)
    targets, target_lengths = padded([row.target for row in rows], pad)
    ranks = [row.rank for row in rows if row.rank is not None]
    names = [{"id": row.ranked.id, "prompt": row.ranked.prompt, "candidate": row.text} for row in rows]
    return Prompts(
        tokens=tokens,
        lengths=lengths,
        group=torch.tensor([row.group for row in rows]),
        references=tuple(row.references for row in rows),
        targets=targets,
        target_lengths=target_lengths,
        features={"rank": torch.tensor(ranks)} if ranks else {},
        examples=tuple({**row.ranked.columns, **own} for row, own in zip(rows, names, strict=True)),
    )


def collator(pad: int) -> "partial[Prompts]":
    """`collate` for one tokenizer, in a form that loading processes can be handed."""
    return partial(collate, pad=pad)

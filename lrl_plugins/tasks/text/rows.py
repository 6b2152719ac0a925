"""The prompts of one split as data set rows, and how a list of rows becomes `Prompts`."""

import random
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.data import Dataset

from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Prompts
from lrl_plugins.tasks.backspace import WithBackspace, with_mistakes
from lrl_plugins.tasks.padding import padded
from lrl_plugins.tasks.text.layout import Layout
from lrl_plugins.tasks.text.sources import Example
from lrl_plugins.tasks.turns import in_turn


@dataclass(frozen=True)
class Row:
    """One prompt with one of its answers to learn from."""

    example: Example
    """The prompt as loaded."""
    group: int
    """Its number, unique over all splits."""
    tokens: tuple[int, ...]
    """What is asked, template included."""
    target: tuple[int, ...] | None
    """The answer to learn from, EOS included; None where there are none."""
    learnt: tuple[bool, ...] | None = None
    """Which of its tokens are learnt; None: all."""


class TextRows(Dataset[list[Row]]):
    """The prompts of one split; entry (prompt, epoch) holds its rows in that epoch.

    Args:
        examples: The prompts.
        first_group: Group number of the first one.
        tokenizer: Makes tokens of prompts and of answers.
        layout: How a prompt is worded and cut.
        max_length: Longest target in tokens, EOS counted.
        references_per_prompt: Answers to learn from per prompt and epoch; None = the first one, in every epoch.
        seed: Of the order in which answers take turns, and of the mistakes.
        noise: Chance, before each token of an answer, of a mistake that is taken back; others in each epoch. It needs a
            tokenizer WithBackspace, and makes a target longer than max_length.
    """

    def __init__(
        self,
        examples: list[Example],
        first_group: int,
        tokenizer: Tokenizer,
        layout: Layout,
        max_length: int,
        references_per_prompt: int | None,
        seed: int,
        noise: float = 0.0,
    ) -> None:
        self.examples = examples
        self.first_group = first_group
        self.tokenizer = tokenizer
        self.layout = layout
        self.max_length = max_length
        self.references_per_prompt = references_per_prompt
        self.seed = seed
        self.noise = noise
        self.words = tokenizer.words if isinstance(tokenizer, WithBackspace) else ()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> list[Row]:
        index, epoch = key
        example, group = self.examples[index], self.first_group + index
        tokens = self.layout.tokens(example, self.tokenizer)
        if not example.references:
            return [Row(example, group, tokens, None)]
        answers = in_turn(example.references, epoch, self.references_per_prompt, f"answers/{self.seed}/{index}")
        targets = [self._target(answer) for answer in answers]
        if not self.noise:
            return [Row(example, group, tokens, target) for target in targets]
        chance = random.Random(f"mistakes/{self.seed}/{epoch}/{index}")
        return [Row(example, group, tokens, *self._with_mistakes(target, chance)) for target in targets]

    def _target(self, answer: str) -> tuple[int, ...]:
        return (*self.tokenizer.encode(answer)[: self.max_length - 1], self.tokenizer.eos)

    def _with_mistakes(
        self, target: tuple[int, ...], chance: random.Random
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        assert self.tokenizer.backspace is not None
        return with_mistakes(target, self.noise, self.words, self.tokenizer.backspace, chance)


def collate(prompts: list[list[Row]], pad: int) -> Prompts:
    """A batch of rows, those of one prompt next to each other.

    Args:
        prompts: The rows of each prompt; all with a target, or none.
        pad: Token id that fills lines.
    """
    rows = [row for own in prompts for row in own]
    tokens, lengths = padded([row.tokens for row in rows], pad)
    targets = [row.target for row in rows if row.target is not None]
    answers, answer_lengths = padded(targets, pad) if targets else (None, None)
    learnt = [row.learnt for row in rows if row.learnt is not None]
    return Prompts(
        tokens=tokens,
        lengths=lengths,
        group=torch.tensor([row.group for row in rows]),
        references=tuple(row.example.references for row in rows) if targets else None,
        targets=answers,
        target_lengths=answer_lengths,
        target_mask=padded(learnt, False)[0] if learnt else None,
        examples=tuple({**row.example.columns, "id": row.example.id, "prompt": row.example.prompt} for row in rows),
    )


def collator(pad: int) -> "partial[Prompts]":
    """`collate` for one tokenizer, in a form that loading processes can be handed."""
    return partial(collate, pad=pad)

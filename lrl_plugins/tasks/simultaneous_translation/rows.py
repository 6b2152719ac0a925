"""Sentences and their translations as data set rows, and how a list of rows becomes `Prompts`."""

import random
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Prompts
from lrl_plugins.tasks.padding import padded
from lrl_plugins.tasks.simultaneous_translation.lines import Line, drawn_path, lay_line
from lrl_plugins.tasks.text.sources import Example
from lrl_plugins.tasks.turns import in_turn

Pieces = tuple[tuple[int, ...], ...]
"""The words of a sentence, each as token ids."""


@dataclass(frozen=True)
class Way:
    """How sentences are heard and what is learnt from them."""

    first: int
    """Words heard before the first action."""
    spoken: bool
    """Whether the words heard enter the line; else cross-attention sees them."""
    read: int
    """Id of READ."""
    eos: int
    """Id of the end token."""
    largest_lag: int
    """The largest k of the wait-k readers that are learnt from."""
    straying: float
    """Share of the sentences whose reader strays."""
    max_words: int
    """Longest sentence in words; longer ones are cut."""
    seed: int
    """Of readers and of the order of translations."""


@dataclass(frozen=True)
class Row:
    """A sentence and one translation of it."""

    example: Example
    """As loaded."""
    group: int
    """Its number, unique over all splits."""
    words: tuple[str, ...]
    """The sentence."""
    source: Pieces
    """Its words as token ids."""
    line: Line | None
    """What is learnt; None where there is no translation."""


def spelt(text: str, tokenizer: Tokenizer, most: int, space: str = "") -> list[tuple[str, tuple[int, ...]]]:
    """The words of a text (white space is between them) and their token ids; of a longer text the first `most`.

    Words without a token are left out (a dash, where the vocabulary has words only): nothing of them can be heard.

    Args:
        text: Words with white space between them.
        tokenizer: Makes tokens of words.
        most: How many words at most.
        space: What `space_before` says.
    """
    pairs = ((word, tuple(tokenizer.encode(space + word if i else word))) for i, word in enumerate(text.split()))
    return list(islice((pair for pair in pairs if pair[1]), most))


def space_before(tokenizer: Tokenizer, word: str) -> str:
    """What stands before a word that is not the first one: a space where tokens of two words would else be one word.

    Args:
        tokenizer: Makes tokens of words.
        word: Any word.
    """
    ids = tokenizer.encode(word)
    return " " if len(tokenizer.decode([*ids, *ids]).split()) == 1 else ""


class Sentences(Dataset[list[Row]]):
    """The sentences of one split; entry (sentence, epoch) holds its one row in that epoch.

    Args:
        examples: The sentences.
        first_group: Group number of the first one.
        tokenizer: Makes tokens of words.
        way: How they are heard.
        held_out: Whether readers and translations are the same in every epoch.
    """

    def __init__(
        self, examples: list[Example], first_group: int, tokenizer: Tokenizer, way: Way, held_out: bool
    ) -> None:
        self.examples, self.first_group, self.tokenizer = examples, first_group, tokenizer
        self.way, self.held_out = way, held_out
        self.space = space_before(tokenizer, next((word for row in examples for word in row.prompt.split()), ""))

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> list[Row]:
        index, epoch = key
        example = self.examples[index]
        heard = self._spelt(example.prompt)
        words, source = tuple(word for word, _ in heard), tuple(ids for _, ids in heard)
        line = self._line(index, 0 if self.held_out else epoch, source)
        return [Row(example, self.first_group + index, words, source, line)]

    def _spelt(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        return spelt(text, self.tokenizer, self.way.max_words, self.space)

    def _line(self, index: int, epoch: int, source: Pieces) -> Line | None:
        way, references = self.way, self.examples[index].references
        if not references:
            return None
        (answer,) = in_turn(references, epoch, 1, f"answers/{way.seed}/{index}")
        target = [ids for _, ids in self._spelt(answer)]
        random_ = random.Random(f"reader/{way.seed}/{index}/{epoch}")
        path = drawn_path(len(source), len(target), way.largest_lag, way.straying, random_)
        return lay_line(source, target, path, first=way.first, read=way.read, eos=way.eos, spoken=way.spoken)


@dataclass(frozen=True)
class Collate:
    """Makes `Prompts` of rows, in a form that loading processes can be handed."""

    pad: int
    """Token id that fills lines."""
    first: int
    """Words heard before the first action."""
    spoken: bool
    """Whether the prompt holds these words only, and the rest enters the line."""

    def __call__(self, prompts: list[list[Row]]) -> Prompts:
        """A batch of rows."""
        rows = [row for own in prompts for row in own]
        heard = [row.source[: self.first] if self.spoken else row.source for row in rows]
        tokens, lengths = padded([[i for word in words for i in word] for words in heard], self.pad)
        lines = [row.line for row in rows if row.line is not None]
        targets, target_lengths = padded([line.tokens for line in lines], self.pad) if lines else (None, None)
        return Prompts(
            tokens=tokens,
            lengths=lengths,
            group=torch.tensor([row.group for row in rows]),
            references=tuple(row.example.references for row in rows) if lines else None,
            targets=targets,
            target_lengths=target_lengths,
            target_mask=padded([line.own for line in lines], False)[0] if lines else None,
            features={} if self.spoken else {"visible": self._visible([row.source for row in rows])},
            examples=tuple(self._example(row) for row in rows),
        )

    def _example(self, row: Row) -> dict[str, object]:
        return {**row.example.columns, "id": row.example.id, "source": " ".join(row.words), "pieces": row.source}

    def _visible(self, sources: list[Pieces]) -> Tensor:
        """Prompt tokens that can be seen after 0..R reads, R that of the longest sentence."""
        counts = []
        for words in sources:
            heard = [sum(map(len, words[:n])) for n in range(len(words) + 1)]
            counts.append(heard[min(self.first, len(words)) :])
        most = max(map(len, counts))
        return torch.tensor([[*row, *row[-1:] * (most - len(row))] for row in counts])

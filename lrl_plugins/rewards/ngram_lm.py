"""A language model that counts: add-k smoothing, orders mixed by fixed weights."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
"""Before a text's first word, after its last, and for words that were not counted."""


@dataclass(frozen=True)
class NgramModel:
    """P(word | words before it), from counts.

    Of order m: (count of the last m words + k) / (count of the m - 1 before + k V), where V words can come next: the
    vocabulary, the end and the unknown word. Orders 1..n are mixed by `mixture` (Jelinek and Mercer 1980).
    """

    counts: tuple[dict[tuple[str, ...], int], ...]
    """How often each n-gram was seen: one dict per order 1..n."""
    k: float
    """Added to every count; > 0."""
    mixture: tuple[float, ...]
    """Weight of each order; they add up to 1."""

    @property
    def n(self) -> int:
        """The longest order."""
        return len(self.counts)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """What can come next: every word that was counted, the end and the unknown word."""
        return frozenset({word for (word,) in self.counts[0]} | {END, UNKNOWN})

    @cached_property
    def _histories(self) -> tuple[Counter[tuple[str, ...]], ...]:
        """How often something followed each history: one counter per order."""
        found: tuple[Counter[tuple[str, ...]], ...] = tuple(Counter() for _ in self.counts)
        for summed, seen in zip(found, self.counts, strict=True):
            for ngram, count in seen.items():
                summed[ngram[:-1]] += count
        return found

    @classmethod
    def of(
        cls, texts: Iterable[Sequence[str]], n: int, k: float, mixture: Sequence[float] | None = None, least: int = 1
    ) -> "NgramModel":
        """Count over tokenised texts, each of which ends.

        Args:
            texts: The words of each text.
            n: Longest n-gram.
            k: Added to every count.
            mixture: Weight of each order 1..n; None puts all on the longest.
            least: Words seen fewer times are counted as unknown.
        """
        texts = [list(text) for text in texts]
        seen = Counter(word for text in texts for word in text)
        counts: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(n)]
        for text in texts:
            line = _line([word if seen[word] >= least else UNKNOWN for word in text], n, ended=True)
            for end in range(n, len(line) + 1):
                for order in range(1, n + 1):
                    counts[order - 1][tuple(line[end - order : end])] += 1
        return cls(tuple(map(dict, counts)), k, tuple(mixture) if mixture else (0.0,) * (n - 1) + (1.0,))

    def probability(self, word: str, before: Sequence[str]) -> float:
        """P(word | before); the last n - 1 words before it count.

        Args:
            word: A word of the vocabulary.
            before: At least n - 1 words of the vocabulary or BEGIN.
        """
        size, total = len(self.vocabulary), 0.0
        for order, weight in enumerate(self.mixture, start=1):
            if weight:
                history = tuple(before[len(before) - order + 1 :])
                seen = self.counts[order - 1].get((*history, word), 0)
                after = self._histories[order - 1][history]
                total += weight * (seen + self.k) / (after + self.k * size)
        return total

    def log_probabilities(self, text: Sequence[str], ended: bool = True) -> list[float]:
        """Natural logarithm of each word's probability given those before it.

        Args:
            text: The words; those that were not counted are unknown.
            ended: Whether the end's probability comes last.
        """
        line = _line([word if word in self.vocabulary else UNKNOWN for word in text], self.n, ended)
        start = self.n - 1
        return [math.log(self.probability(line[i], line[i - start : i])) for i in range(start, len(line))]

    def pack(self) -> dict[str, Any]:
        """The same as a list of words and tensors of their numbers, small enough for a checkpoint."""
        words = list(dict.fromkeys(word for seen in self.counts for ngram in seen for word in ngram))
        index = {word: i for i, word in enumerate(words)}
        rows = [[[*(index[word] for word in ngram), count] for ngram, count in seen.items()] for seen in self.counts]
        counts = [torch.tensor(row, dtype=torch.int32) for row in rows]
        return {"words": words, "counts": counts, "k": self.k, "mixture": list(self.mixture)}

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> "NgramModel":
        """Read what `pack` gave."""
        words = packed["words"]
        counts = tuple({tuple(words[i] for i in row[:-1]): row[-1] for row in c.tolist()} for c in packed["counts"])
        return cls(counts, packed["k"], tuple(packed["mixture"]))


def _line(text: Sequence[str], n: int, ended: bool) -> list[str]:
    """A text with n - 1 begins before it and, if it ended, an end after it."""
    return [BEGIN] * (n - 1) + list(text) + [END] * ended

"""Counting n-grams of tokenised sentences."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeAlias

Sentence: TypeAlias = Sequence[Hashable]
"""A tokenised sentence: words or token ids."""
Ngram: TypeAlias = tuple[Hashable, ...]


def ngrams_of(sentence: Sentence, n: int) -> Counter[Ngram]:
    """How often each n-gram of this one order occurs; empty where the sentence is shorter."""
    return Counter(zip(*(sentence[i:] for i in range(n)), strict=False))


def ngram_counts(sentence: Sentence, n: int) -> list[Counter[Ngram]]:
    """How often each n-gram occurs: one counter per order 1..n, empty where the sentence is shorter."""
    return [ngrams_of(sentence, order) for order in range(1, n + 1)]

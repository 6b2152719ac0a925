"""chrF and chrF++: an F-measure of character n-grams, and of word n-grams if wanted (Popović 2015 and 2017)."""

import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

from lrl_core.metrics.ngrams import ngram_counts

ChrfCounts: TypeAlias = list[Counter[Any]]
"""One counter per order: characters first, then words."""


def chrf_counts(text: str, characters: int = 6, words: int = 0) -> ChrfCounts:
    """The n-grams of a text; white space is no character, and punctuation at a word's edge is a word of its own.

    Args:
        text: Raw text; case counts.
        characters: Longest character n-gram.
        words: Longest word n-gram; 0 for chrF, 2 for chrF++.
    """
    letters = "".join(text.split())
    counts: ChrfCounts = [
        Counter(letters[i : i + order] for i in range(len(letters) - order + 1)) for order in range(1, characters + 1)
    ]
    return [*counts, *ngram_counts(_split_punctuation(text), words)] if words else counts


def chrf(candidate: ChrfCounts, references: Sequence[ChrfCounts], beta: float = 2.0) -> float:
    """ChrF of one candidate against its best reference, in [0, 1].

    Precision and recall are averaged over the orders for which both sides are long enough, then combined.

    Args:
        candidate: `chrf_counts` of the candidate.
        references: Those of its references, at least one, with the same orders.
        beta: Weight of recall against precision; above 1 favours recall.
    """
    return max(_f_measure(candidate, reference, beta) for reference in references)


def _f_measure(candidate: ChrfCounts, reference: ChrfCounts, beta: float) -> float:
    precision = recall = 0.0
    for said, wanted in zip(candidate, reference, strict=True):
        if said and wanted:
            shared = sum(min(times, wanted[ngram]) for ngram, times in said.items())
            precision += shared / sum(said.values())
            recall += shared / sum(wanted.values())
    orders = sum(1 for said, wanted in zip(candidate, reference, strict=True) if said and wanted)
    if precision == 0 or recall == 0:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def _split_punctuation(text: str) -> list[str]:
    tokens: list[str] = []
    for word in text.split():
        # One mark at most, the last before the first, as in chrF++'s own code.
        if len(word) > 1 and word[-1] in string.punctuation:
            tokens += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            tokens += [word[0], word[1:]]
        else:
            tokens.append(word)
    return tokens

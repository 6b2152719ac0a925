"""ROUGE: n-grams or longest common subsequence shared with a reference (Lin 2004), and ROUGE-L as COCO defines it."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from lrl_core.metrics.ngrams import Ngram, Sentence


class Overlap(NamedTuple):
    """How much a candidate and one reference share, each in [0, 1]."""

    precision: float
    """Share of the candidate that stands in the reference; 0 for an empty candidate."""
    recall: float
    """Share of the reference that stands in the candidate; 0 for an empty reference."""

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where nothing is shared."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both > 0 else 0.0


def rouge_n(candidate: Counter[Ngram], reference: Counter[Ngram]) -> Overlap:
    """ROUGE-N: n-grams in both, each counted at most as often as in the other.

    Args:
        candidate: `ngrams_of` the candidate (lrl_core.metrics.ngrams).
        reference: `ngrams_of` one reference, same order.
    """
    shared = sum(min(times, reference[ngram]) for ngram, times in candidate.items())
    return _overlap(shared, sum(candidate.values()), sum(reference.values()))


def rouge_l_overlap(candidate: Sentence, reference: Sentence) -> Overlap:
    """ROUGE-L of a candidate and one reference, as the rouge_score package computes it.

    Args:
        candidate: Tokenised text, taken as one sentence.
        reference: Tokenised reference, taken as one sentence.
    """
    return rouge_l_overlaps(candidate, [reference])[0]


def rouge_l_overlaps(candidate: Sentence, references: Sequence[Sentence]) -> list[Overlap]:
    """ROUGE-L of a candidate and each of its references.

    Args:
        candidate: Tokenised text, taken as one sentence.
        references: Tokenised references, each taken as one sentence.
    """
    shared = longest_common_subsequences(candidate, references)
    return [_overlap(n, len(candidate), len(own)) for n, own in zip(shared, references, strict=True)]


def rouge_l(candidate: Sentence, references: Sequence[Sentence], beta: float = 1.2) -> float:
    """ROUGE-L of the COCO caption evaluation in [0, 1]; best precision and recall may come from different references.

    Args:
        candidate: Tokenised sentence.
        references: Its tokenised references, at least one.
        beta: Weight of recall against precision; above 1 favours recall.
    """
    shared = longest_common_subsequences(candidate, references)
    precision = max(shared) / max(1, len(candidate))
    recall = max(n / max(1, len(reference)) for n, reference in zip(shared, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def longest_common_subsequences(left: Sentence, rights: Sequence[Sentence]) -> list[int]:
    """For each right sentence the tokens in the longest sequence that stands in both in this order, gaps allowed."""
    # One row of the usual table as the bits of an integer (Hyyrö 2004): bit i is 0 where the row rises at left[i].
    places: dict[Hashable, int] = {}
    for i, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(left)) - 1
    rises = []
    for right in rights:
        row = full
        for token in right:
            if token in places:  # else the row stays as it is
                matched = row & places[token]
                row = row + matched | row - matched  # carries beyond the last bit change none below
        rises.append(len(left) - (row & full).bit_count())
    return rises


def _overlap(shared: int, candidate: int, reference: int) -> Overlap:
    return Overlap(shared / max(1, candidate), shared / max(1, reference))

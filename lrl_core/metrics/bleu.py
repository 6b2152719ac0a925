"""BLEU of sentences and corpora, with the smoothings and reference lengths that are in use (Papineni et al. 2002)."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from lrl_core.metrics.ngrams import Ngram, Sentence, ngram_counts

Smoothing: TypeAlias = Literal["none", "floor", "exp", "add_one", "add_one_all", "coco"]
"""What a precision without matches becomes.

- none: 0, and BLEU with it.
- floor: 0.1 matches (sacrebleu's floor; NLTK's method 1 with epsilon 0.1).
- exp: 1/2, 1/4, 1/8, ... match for the first, second, third such order (sacrebleu's default).
- add_one: one more match and one more n-gram in every order but the first (Lin and Och 2004; sacrebleu's add-k).
- add_one_all: the same in every order (MIXER).
- coco: 1e-15 matches and 1e-9 n-grams more everywhere (the COCO caption evaluation): tiny, never exactly 0.
"""
ReferenceLength: TypeAlias = Literal["closest", "shortest", "average"]
"""Which length of several references the brevity penalty compares with; ties of closest go to the shorter."""

FLOOR = 0.1
COCO_MATCHES, COCO_TOTAL = 1e-15, 1e-9


@dataclass(frozen=True)
class ReferenceCounts:
    """The references of one prompt, ready to be compared with many candidates."""

    most: list[Counter[Ngram]]
    """For each order: how often an n-gram occurs in the reference that has most of it."""
    lengths: list[int]
    """Tokens in each reference."""

    @classmethod
    def of(cls, references: Sequence[Sentence], n: int = 4) -> "ReferenceCounts":
        """Count n-grams up to order `n`."""
        most: list[Counter[Ngram]] = [Counter() for _ in range(n)]
        for reference in references:
            for known, counts in zip(most, ngram_counts(reference, n), strict=True):
                known |= counts
        return cls(most, [len(reference) for reference in references])

    def length_for(self, candidate: int, which: ReferenceLength) -> float:
        """The length that a candidate of `candidate` tokens is compared with."""
        if which == "closest":
            return min(self.lengths, key=lambda length: (abs(length - candidate), length))
        if which == "shortest":
            return min(self.lengths)
        return sum(self.lengths) / len(self.lengths)


@dataclass(frozen=True)
class BleuStatistics:
    """What BLEU needs to know of one candidate; a corpus is their sum."""

    matches: tuple[int, ...]
    """Clipped matches of each order."""
    totals: tuple[int, ...]
    """N-grams of each order in the candidate."""
    length: int
    """Tokens in the candidate."""
    reference_length: float
    """Tokens it is compared with."""

    @classmethod
    def of(
        cls, candidate: Sentence, references: ReferenceCounts, reference_length: ReferenceLength = "closest"
    ) -> "BleuStatistics":
        """Compare one candidate with its references."""
        n = len(references.most)
        pairs = zip(ngram_counts(candidate, n), references.most, strict=True)
        return cls(
            matches=tuple(sum(min(times, most[ngram]) for ngram, times in counts.items()) for counts, most in pairs),
            totals=tuple(max(0, len(candidate) - order) for order in range(n)),
            length=len(candidate),
            reference_length=references.length_for(len(candidate), reference_length),
        )

    @classmethod
    def sum(cls, several: Iterable["BleuStatistics"]) -> "BleuStatistics":
        """The statistics of a corpus; at least one sentence."""
        rows = list(several)
        return cls(
            matches=tuple(map(sum, zip(*(row.matches for row in rows), strict=True))),
            totals=tuple(map(sum, zip(*(row.totals for row in rows), strict=True))),
            length=sum(row.length for row in rows),
            reference_length=sum(row.reference_length for row in rows),
        )


def bleu(statistics: BleuStatistics, smoothing: Smoothing = "none", effective_order: bool = False) -> list[float]:
    """BLEU-1 to BLEU-n in [0, 1].

    Args:
        statistics: Of a sentence, or summed over a corpus.
        smoothing: What a precision without matches becomes; see `Smoothing`.
        effective_order: Leave out orders for which the candidate is too short, instead of giving 0.
    """
    if smoothing not in get_args(Smoothing):
        raise ValueError(f"bleu: smoothing is {smoothing!r}; expected one of {', '.join(get_args(Smoothing))}.")
    precisions = _precisions(statistics, smoothing)
    brevity = _brevity(statistics, smoothing)
    scores = []
    for order in range(1, len(precisions) + 1):
        used = precisions[:order]
        if effective_order:
            used = [p for p, total in zip(used, statistics.totals, strict=False) if total > 0]
        zero = not used or min(used) <= 0
        scores.append(0.0 if zero else brevity * math.exp(sum(map(math.log, used)) / len(used)))
    return scores


def sentence_bleu(
    candidate: Sentence,
    references: Sequence[Sentence],
    n: int = 4,
    smoothing: Smoothing = "none",
    reference_length: ReferenceLength = "closest",
    effective_order: bool = False,
) -> list[float]:
    """BLEU-1 to BLEU-n of one candidate, in [0, 1].

    Args:
        candidate: Tokenised sentence.
        references: Its tokenised references, at least one.
        n: Longest n-gram.
        smoothing: What a precision without matches becomes.
        reference_length: Which of the references' lengths the brevity penalty compares with.
        effective_order: Leave out orders for which the candidate is too short, instead of giving 0.
    """
    statistics = BleuStatistics.of(candidate, ReferenceCounts.of(references, n), reference_length)
    return bleu(statistics, smoothing, effective_order)


def corpus_bleu(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    n: int = 4,
    smoothing: Smoothing = "none",
    reference_length: ReferenceLength = "closest",
    effective_order: bool = False,
) -> list[float]:
    """BLEU-1 to BLEU-n of a corpus: matches and lengths are summed over sentences before any ratio.

    Args:
        candidates: Tokenised sentences, at least one.
        references: For each candidate its tokenised references, at least one.
        n: Longest n-gram.
        smoothing: What a precision without matches becomes.
        reference_length: Which of the references' lengths the brevity penalty compares with.
        effective_order: Leave out orders for which every candidate is too short, instead of giving 0.
    """
    pairs = zip(candidates, references, strict=True)
    rows = (BleuStatistics.of(said, ReferenceCounts.of(own, n), reference_length) for said, own in pairs)
    return bleu(BleuStatistics.sum(rows), smoothing, effective_order)


def _precisions(statistics: BleuStatistics, smoothing: Smoothing) -> list[float]:
    if not any(statistics.matches) and smoothing in ("floor", "exp"):
        return [0.0] * len(statistics.matches)  # as sacrebleu: nothing matches, nothing to smooth
    precisions = []
    halving = 1
    for order, (matches, total) in enumerate(zip(statistics.matches, statistics.totals, strict=True), start=1):
        right, of = float(matches), float(total)
        if smoothing == "coco":
            right, of = right + COCO_MATCHES, of + COCO_TOTAL
        elif smoothing == "add_one_all" or (smoothing == "add_one" and order > 1):
            right, of = right + 1, of + 1
        elif matches == 0 and total > 0 and smoothing == "floor":
            right = FLOOR
        elif matches == 0 and total > 0 and smoothing == "exp":
            halving *= 2
            right = 1 / halving
        precisions.append(right / of if of > 0 else 0.0)
    return precisions


def _brevity(statistics: BleuStatistics, smoothing: Smoothing) -> float:
    length, reference = float(statistics.length), statistics.reference_length
    if smoothing == "coco":
        length, reference = length + COCO_MATCHES, reference + COCO_TOTAL
    if length <= 0:
        return 0.0
    return 1.0 if length >= reference else math.exp(1 - reference / length)

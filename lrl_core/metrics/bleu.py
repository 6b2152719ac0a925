"""BLEU of sentences and corpora, with the smoothings and reference lengths that are in use (Papineni et al. 2002)."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar, get_args

import numpy as np
from jaxtyping import Float, Int

from lrl_core.metrics.ngram_batch import NgramBatch, Words, first_of_runs
from lrl_core.metrics.ngrams import Sentence
from lrl_core.metrics.reference_ngrams import LIMIT, OneAtATime, Pairs, ReferenceNgrams

Key = TypeVar("Key", bound=Hashable)

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
class BleuStatistics:
    """What BLEU needs to know of candidates, one row each; a corpus is their sum."""

    matches: Int[np.ndarray, "B n"]
    """Clipped matches of each order."""
    totals: Int[np.ndarray, "B n"]
    """N-grams of each order in the candidate."""
    length: Int[np.ndarray, " B"]
    """Tokens in the candidate."""
    reference_length: Float[np.ndarray, " B"]
    """Tokens it is compared with."""

    def sum(self) -> "BleuStatistics":
        """The statistics of a corpus, as one row."""
        columns = (self.matches, self.totals, self.length, self.reference_length)
        return BleuStatistics(*(column.sum(axis=0, keepdims=True) for column in columns))


class BleuCounter(Generic[Key]):
    """Compares batches of candidates with references; what is counted of a prompt's references is remembered.

    Args:
        n: Longest n-gram.
        reference_length: Which of the references' lengths the brevity penalty compares with.
    """

    def __init__(self, n: int = 4, reference_length: ReferenceLength = "closest") -> None:
        self.n, self.reference_length = n, reference_length
        self._turn = OneAtATime()
        self._references: ReferenceNgrams[Key] = ReferenceNgrams(n, Words())

    def compare(
        self, candidates: Sequence[Sentence], keys: Sequence[Key], tokenised: Callable[[Key], Sequence[Sentence]]
    ) -> BleuStatistics:
        """Compare candidates with their references.

        Args:
            candidates: Tokenised sentences.
            keys: For each candidate what its references are remembered by.
            tokenised: Gives the tokenised references of a key, at least one; called for keys that are not remembered.
        """
        with self._turn:
            return self._compare(candidates, keys, tokenised)

    def _compare(
        self, candidates: Sequence[Sentence], keys: Sequence[Key], tokenised: Callable[[Key], Sequence[Sentence]]
    ) -> BleuStatistics:
        if not self._references.room_for(keys, LIMIT):
            self._references = ReferenceNgrams(self.n, Words())
        self._references.add(keys, tokenised)
        pairs = self._references.pairs(keys)
        batch = NgramBatch.of(candidates, self.n, self._references.words)
        matches = np.zeros((len(candidates), self.n), np.int64)
        for order, own in enumerate(self._references.shared(batch, pairs)):
            # Every n-gram of `at` is in some reference: its run of entries is not empty, as reduceat needs.
            most = np.maximum.reduceat(own.times, first_of_runs(own.gram)) if len(own.at) else np.zeros(0, np.int64)
            # Floats up to 2^53 hold these counts exactly.
            clipped = np.bincount(batch.sentence[own.at], np.minimum(batch.times[order, own.at], most), len(candidates))
            matches[:, order] = clipped
        totals = np.maximum(0, batch.lengths[:, None] - np.arange(self.n))
        lengths = self._references.lengths[pairs.reference]
        return BleuStatistics(
            matches, totals, batch.lengths, _compared(lengths, batch.lengths, pairs, self.reference_length)
        )


def _compared(
    lengths: Int[np.ndarray, " M"], candidates: Int[np.ndarray, " B"], pairs: Pairs, which: ReferenceLength
) -> Float[np.ndarray, " B"]:
    """The length that each candidate is compared with, from those of its references."""
    if which == "average":
        return np.add.reduceat(lengths, pairs.first) / pairs.count if len(candidates) else np.zeros(0)
    if which == "closest":
        gaps = np.abs(lengths - candidates[pairs.candidate])
        nearest = np.minimum.reduceat(gaps, pairs.first) if len(candidates) else gaps
        lengths = np.where(gaps == nearest[pairs.candidate], lengths, np.iinfo(np.int64).max)
    return (np.minimum.reduceat(lengths, pairs.first) if len(candidates) else lengths).astype(np.float64)


def bleu(
    statistics: BleuStatistics, smoothing: Smoothing = "none", effective_order: bool = False
) -> Float[np.ndarray, "B n"]:
    """BLEU-1 to BLEU-n in [0, 1], for each row of the statistics.

    Args:
        statistics: Of sentences, or summed over a corpus.
        smoothing: What a precision without matches becomes; see `Smoothing`.
        effective_order: Leave out orders for which the candidate is too short, instead of giving 0.
    """
    if smoothing not in get_args(Smoothing):
        raise ValueError(f"bleu: smoothing is {smoothing!r}; expected one of {', '.join(get_args(Smoothing))}.")
    precisions = _precisions(statistics, smoothing)
    used = statistics.totals > 0 if effective_order else np.ones(precisions.shape, np.bool_)
    orders = np.cumsum(used, axis=1)
    zero = (orders == 0) | np.logical_or.accumulate(used & (precisions <= 0), axis=1)
    logs = np.log(precisions, out=np.zeros(precisions.shape), where=used & (precisions > 0))
    means = np.cumsum(logs, axis=1) / np.maximum(1, orders)
    return np.where(zero, 0.0, _brevity(statistics, smoothing)[:, None] * np.exp(means))


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
    statistics = _statistics([candidate], [references], n, reference_length)
    return bleu(statistics, smoothing, effective_order)[0].tolist()


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
    statistics = _statistics(candidates, references, n, reference_length)
    return bleu(statistics.sum(), smoothing, effective_order)[0].tolist()


def _statistics(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    n: int,
    reference_length: ReferenceLength,
) -> BleuStatistics:
    if len(candidates) != len(references):
        raise ValueError(
            f"bleu got {len(candidates)} candidates and {len(references)} sets of references; expected one set for "
            "each candidate. Repeat a prompt's references for each of its candidates."
        )
    counter: BleuCounter[int] = BleuCounter(n, reference_length)
    return counter.compare(candidates, range(len(references)), references.__getitem__)


def _precisions(statistics: BleuStatistics, smoothing: Smoothing) -> Float[np.ndarray, "B n"]:
    matches, totals = statistics.matches.astype(np.float64), statistics.totals.astype(np.float64)
    missed = (matches == 0) & (totals > 0)
    if smoothing == "coco":
        matches, totals = matches + COCO_MATCHES, totals + COCO_TOTAL
    elif smoothing in ("add_one", "add_one_all"):
        more = np.ones(matches.shape[1])
        more[0] = smoothing == "add_one_all"
        matches, totals = matches + more, totals + more
    elif smoothing in ("floor", "exp"):
        instead = FLOOR if smoothing == "floor" else 0.5 ** np.cumsum(missed, axis=1)
        some = statistics.matches.any(axis=1, keepdims=True)  # as sacrebleu: nothing matches, nothing to smooth
        matches = np.where(missed & some, instead, matches)
    return np.divide(matches, totals, out=np.zeros(matches.shape), where=totals > 0)


def _brevity(statistics: BleuStatistics, smoothing: Smoothing) -> Float[np.ndarray, " B"]:
    length, reference = statistics.length.astype(np.float64), statistics.reference_length
    if smoothing == "coco":
        length, reference = length + COCO_MATCHES, reference + COCO_TOTAL
    ratio = np.divide(reference, length, out=np.full(len(length), np.inf), where=length > 0)  # exp(1 - inf) is 0
    return np.exp(np.minimum(0, 1 - ratio))

"""How varied texts are: repeated and distinct n-grams, and BLEU of texts against each other."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from lrl_core.metrics.bleu import BleuStatistics, ReferenceCounts, bleu
from lrl_core.metrics.ngrams import Ngram, Sentence, ngram_counts, ngrams_of

Holders: TypeAlias = dict[Ngram, tuple[int, int, int]]
"""For each n-gram: how often it occurs in the sentence that has most of it, which that is, how often in the next."""


def distinct_n(sentences: Iterable[Sentence], n: int) -> float | None:
    """Share of distinct n-grams among all n-grams of the sentences (Li et al. 2016); None where there are none.

    Args:
        sentences: Tokenised sentences: one for a text by itself, all for a corpus.
        n: Length of the n-grams.
    """
    counts: Counter[Ngram] = Counter()
    for sentence in sentences:
        counts.update(ngrams_of(sentence, n))
    return len(counts) / sum(counts.values()) if counts else None


def self_bleu(sentences: Sequence[Sentence], n: int = 4) -> list[float]:
    """BLEU-n of each sentence against all others as references (Zhu et al. 2018), in [0, 1]; 1 = says the same.

    A precision without matches counts as 0.1 matches (NLTK's method 1). Orders for which a sentence is too short are
    left out, so that short sentences that are equal score 1 too; an empty one scores 1 beside another empty one.

    Args:
        sentences: Tokenised sentences, at least two; each is judged against the rest, never against itself.
        n: Longest n-gram.
    """
    if len(sentences) < 2:
        raise ValueError(f"self_bleu got {len(sentences)} sentences; expected at least 2. Draw more samples.")
    counted = [ngram_counts(sentence, n) for sentence in sentences]
    most = [_two_most([counts[order] for counts in counted]) for order in range(n)]
    return [_against_rest(which, sentences, counts, most) for which, counts in enumerate(counted)]


def _against_rest(
    which: int, sentences: Sequence[Sentence], counts: list[Counter[Ngram]], most: list[Holders]
) -> float:
    """BLEU-n of sentence `which`, with the maximum counts over all sentences but itself."""
    rest = [len(sentence) for i, sentence in enumerate(sentences) if i != which]
    if not sentences[which]:
        return float(0 in rest)
    others = [Counter(_without(which, own, over)) for own, over in zip(counts, most, strict=True)]
    statistics = BleuStatistics.of(sentences[which], ReferenceCounts(others, rest))
    return bleu(statistics, "floor", effective_order=True)[-1]


def _two_most(counted: list[Counter[Ngram]]) -> Holders:
    most: Holders = {}
    for which, counts in enumerate(counted):
        for ngram, times in counts.items():
            first, holder, second = most.get(ngram, (0, -1, 0))
            most[ngram] = (times, which, first) if times > first else (first, holder, max(second, times))
    return most


def _without(which: int, own: Counter[Ngram], most: Holders) -> dict[Ngram, int]:
    """How often at most the n-grams of sentence `which` occur in another one."""
    return {ngram: second if holder == which else first for ngram in own for first, holder, second in [most[ngram]]}

"""How varied texts are: repeated and distinct n-grams, and BLEU of texts against each other."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from lrl_core.metrics.bleu import BleuStatistics, Smoothing, bleu
from lrl_core.metrics.ngram_batch import NgramBatch, NgramTree, Words, first_of_runs
from lrl_core.metrics.ngrams import Ngram, Sentence, ngrams_of


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


def self_bleu(
    sentences: Sequence[Sentence],
    n: int = 4,
    smoothing: Smoothing = "floor",
    effective_order: bool = True,
    groups: Sequence[int] | None = None,
) -> list[float]:
    """BLEU-n of each sentence against all others as references (Zhu et al. 2018), in [0, 1]; 1 = says the same.

    By default a precision without matches counts as 0.1 matches (NLTK's method 1), and orders for which a sentence is
    too short are left out, so that short sentences that are equal score 1 too. An empty one scores 1 beside another
    empty one, else 0.

    Args:
        sentences: Tokenised sentences; each is judged against the others of its group, never against itself.
        n: Longest n-gram.
        smoothing: What a precision without matches becomes; see `lrl_core.metrics.bleu.Smoothing`.
        effective_order: Leave out orders for which a sentence is too short, instead of giving 0.
        groups: The group of each sentence, numbered from 0, at least two in each; None takes all as one group.
    """
    own = np.zeros(len(sentences), np.int64) if groups is None else np.asarray(groups, np.int64)
    fewest = np.bincount(own)[own].min(initial=len(own))
    if fewest < 2:
        raise ValueError(f"self_bleu got {fewest} sentences; expected at least 2. Draw more samples.")
    batch = NgramBatch.of(sentences, n, Words(), grow=True)
    matches = np.empty((len(own), n), np.int64)
    for order, (at, nodes) in enumerate(NgramTree().find(batch, own, grow=True)):
        times = batch.times[order, at]
        at, nodes, times = at[times > 0], nodes[times > 0], times[times > 0]
        clipped = np.minimum(times, _most_of_others(nodes, times))
        matches[:, order] = np.bincount(batch.sentence[at], clipped, len(own))
    totals = np.maximum(0, batch.lengths[:, None] - np.arange(n))
    closest = _closest_of_others(batch.lengths, own)
    scores = bleu(
        BleuStatistics(matches, totals, batch.lengths, closest.astype(np.float64)), smoothing, effective_order
    )
    return np.where(batch.lengths == 0, closest == 0, scores[:, -1]).tolist()


def _most_of_others(nodes: Int[np.ndarray, " G"], times: Int[np.ndarray, " G"]) -> Int[np.ndarray, " G"]:
    """How often at most an n-gram occurs in another sentence: nodes say which n-gram, times how often in this one."""
    order = np.lexsort((-times, nodes))  # by n-gram, first the sentence that has most of it, then the next
    most = times[order]
    firsts = first_of_runs(nodes[order])
    counts = np.diff(firsts, append=len(order))
    second = np.where(counts > 1, most[np.minimum(firsts + 1, len(order) - 1)], 0)
    most = np.repeat(most[firsts], counts)
    most[firsts] = second
    others = np.empty(len(order), np.int64)
    others[order] = most
    return others


def _closest_of_others(lengths: Int[np.ndarray, " B"], groups: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
    """The length nearest to each sentence's among the others of its group; ties go to the shorter."""
    far = 1 << 31  # more than any length
    distinct, which, counts = np.unique(groups * far + lengths, return_inverse=True, return_counts=True)
    # Neighbours in another group are farther apart than any two lengths of one group: they never win.
    gaps = np.diff(distinct)
    gaps = np.where(np.diff(distinct // far) > 0, far, gaps)
    below, above = np.append(far, gaps), np.append(gaps, far)
    nearest = distinct % far + np.where(below <= above, -below, above)
    return np.where(counts > 1, distinct % far, nearest)[which]

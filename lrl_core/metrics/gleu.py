"""GLEU: the smaller of n-gram precision and recall (Wu et al. 2016, arXiv 1609.08144, section 4.3)."""

from collections.abc import Sequence

from lrl_core.metrics.ngrams import Sentence, ngram_counts


def corpus_gleu(candidates: Sequence[Sentence], references: Sequence[Sequence[Sentence]], n: int = 4) -> float:
    """GLEU of a corpus in [0, 1]: shared n-grams of orders 1 to n over those of the longer side, both summed first.

    Of several references the one counts whose own GLEU with the candidate is highest, as in NLTK.

    Args:
        candidates: Tokenised sentences.
        references: For each candidate its tokenised references, at least one.
        n: Longest n-gram.
    """
    if len(candidates) != len(references):
        raise ValueError(
            f"gleu got {len(candidates)} candidates and {len(references)} sets of references; expected one set for "
            "each candidate. Repeat a prompt's references for each of its candidates."
        )
    shared, most = 0, 0
    for candidate, own in zip(candidates, references, strict=True):
        pairs = [gleu_counts(candidate, reference, n) for reference in own]
        pairs = [pair for pair in pairs if pair[1] > 0]
        if pairs:
            best = max(pairs, key=lambda pair: pair[0] / pair[1])
            shared, most = shared + best[0], most + best[1]
    return shared / most if most else 0.0


def gleu_counts(candidate: Sentence, reference: Sentence, n: int = 4) -> tuple[int, int]:
    """Shared n-grams of orders 1 to n, each as often as in both, and how many the longer of the two has in all.

    Args:
        candidate: Tokenised sentence.
        reference: Tokenised reference.
        n: Longest n-gram.
    """
    said, known = ngram_counts(candidate, n), ngram_counts(reference, n)
    shared = sum(sum((own & other).values()) for own, other in zip(said, known, strict=True))
    sizes = [sum(sum(counts.values()) for counts in side) for side in (said, known)]
    return shared, max(sizes)

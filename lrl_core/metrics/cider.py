"""CIDEr and CIDEr-D: cosine of tf-idf weighted n-grams with the references (Vedantam et al. 2015, arXiv:1411.5726).

The scale is that of the authors' code: 0 to 10. Papers print the corpus mean times 100.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrl_core.metrics.ngrams import Ngram, Sentence, ngram_counts


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many documents each n-gram occurs; a document is one prompt with all its references."""

    counts: dict[Ngram, int]
    """Documents that contain the n-gram in at least one reference."""
    documents: int
    """How many documents there are; idf is log(documents) - log(count)."""
    n: int = 4
    """The longest n-gram that was counted."""

    def pack(self) -> dict[str, Any]:
        """The same as plain lists, small enough for a checkpoint: tokens once, n-grams per order as flat indices."""
        ordered = sorted(self.counts.items(), key=str)  # sets were counted: their order differs from run to run
        tokens = list(dict.fromkeys(token for ngram, _ in ordered for token in ngram))
        index = {token: i for i, token in enumerate(tokens)}
        by_order: list[list[tuple[Ngram, int]]] = [[] for _ in range(self.n)]
        for ngram, count in ordered:
            by_order[len(ngram) - 1].append((ngram, count))
        return {
            "documents": self.documents,
            "tokens": tokens,
            "ngrams": [[index[token] for ngram, _ in listed for token in ngram] for listed in by_order],
            "counts": [[count for _, count in listed] for listed in by_order],
        }

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> "DocumentFrequencies":
        """Read what `pack` gave."""
        tokens = packed["tokens"]
        counts: dict[Ngram, int] = {}
        for n, (flat, numbers) in enumerate(zip(packed["ngrams"], packed["counts"], strict=True), start=1):
            spelled = [tokens[i] for i in flat]
            counts.update(zip(zip(*(spelled[i::n] for i in range(n)), strict=True), numbers, strict=True))
        return cls(counts, packed["documents"], len(packed["ngrams"]))

    def to_json(self, path: str | Path) -> None:
        """Write a JSON file; tokens must be strings or integers."""
        Path(path).write_text(json.dumps(self.pack(), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def from_json(cls, path: str | Path) -> "DocumentFrequencies":
        """Read what `to_json` wrote."""
        return cls.unpack(json.loads(Path(path).read_text(encoding="utf-8")))


def document_frequencies(references: Iterable[Sequence[Sentence]], n: int = 4) -> DocumentFrequencies:
    """Count documents per n-gram.

    Args:
        references: For each document its tokenised references.
        n: Longest n-gram that is counted.
    """
    counts: Counter[Ngram] = Counter()
    documents = 0
    for document in references:
        counts.update({ngram for reference in document for order in ngram_counts(reference, n) for ngram in order})
        documents += 1
    return DocumentFrequencies(dict(counts), documents, n)


@dataclass(frozen=True)
class ReferenceVectors:
    """The references of one prompt, ready to be compared with many candidates."""

    weights: dict[Ngram, list[tuple[int, float]]]
    """For each n-gram: (which reference, its tf-idf weight there)."""
    norms: list[list[float]]
    """Length of the tf-idf vector: [order][reference]."""
    bigrams: list[int]
    """Bigrams in each reference: the length that CIDEr-D compares."""


class CiderScorer:
    """Scores candidates against prepared references: prepare once per prompt, score every sample against it.

    Args:
        frequencies: Document frequencies, normally of the training references.
        n: Longest n-gram.
        sigma: Width of CIDEr-D's length penalty; None leaves the penalty out.
        clip: Whether an n-gram counts at most as often as in the reference (CIDEr-D) or as often as it is said.
    """

    def __init__(
        self, frequencies: DocumentFrequencies, n: int = 4, sigma: float | None = 6.0, clip: bool = True
    ) -> None:
        self.n, self.sigma, self.clip = n, sigma, clip
        self._counts = frequencies.counts
        # The max keeps log defined for an empty corpus; every weight is then 0, as for a corpus of one document.
        self._log_documents = math.log(max(1, frequencies.documents))

    def prepare(self, references: Sequence[Sentence]) -> ReferenceVectors:
        """Weigh the n-grams of one prompt's references."""
        weights: dict[Ngram, list[tuple[int, float]]] = {}
        norms: list[list[float]] = [[] for _ in range(self.n)]
        for which, reference in enumerate(references):
            for order, vector in enumerate(self._vectors(reference)):
                norms[order].append(_norm(vector))
                for ngram, weight in vector.items():
                    weights.setdefault(ngram, []).append((which, weight))
        return ReferenceVectors(weights, norms, [_bigrams(reference) for reference in references])

    def score(self, candidate: Sentence, references: ReferenceVectors) -> float:
        """CIDEr of one candidate, 0 to 10: 10 x mean over orders and references of the (clipped) cosine."""
        count = len(references.bigrams)
        factors = [self._length_factor(_bigrams(candidate) - bigrams) for bigrams in references.bigrams]
        total = 0.0
        for order, vector in enumerate(self._vectors(candidate)):
            norm = _norm(vector)
            dots = self._dots(vector, references)
            for dot, factor, reference_norm in zip(dots, factors, references.norms[order], strict=True):
                if norm > 0 and reference_norm > 0:
                    total += factor * dot / (norm * reference_norm)
        return 10 * total / (self.n * count)

    def _dots(self, vector: dict[Ngram, float], references: ReferenceVectors) -> list[float]:
        dots = [0.0] * len(references.bigrams)
        for ngram, weight in vector.items():
            for which, other in references.weights.get(ngram, ()):
                dots[which] += (min(weight, other) if self.clip else weight) * other
        return dots

    def _length_factor(self, difference: int) -> float:
        return 1.0 if self.sigma is None else math.exp(-(difference**2) / (2 * self.sigma**2))

    def _vectors(self, sentence: Sentence) -> list[dict[Ngram, float]]:
        return [
            {ngram: times * self._idf(ngram) for ngram, times in counts.items()}
            for counts in ngram_counts(sentence, self.n)
        ]

    def _idf(self, ngram: Ngram) -> float:
        return self._log_documents - math.log(max(1, self._counts.get(ngram, 1)))


def cider(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    frequencies: DocumentFrequencies | None = None,
    n: int = 4,
) -> list[float]:
    """CIDEr of each candidate, without clipping and length penalty, 0 to 10.

    Args:
        candidates: Tokenised sentences.
        references: For each candidate its tokenised references, at least one.
        frequencies: Document frequencies; None counts them over `references`, each entry one document (corpus mode:
            right for a whole test set, meaningless for a few captions).
        n: Longest n-gram.
    """
    return _score_all(candidates, references, frequencies, n, sigma=None, clip=False)


def cider_d(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    frequencies: DocumentFrequencies | None = None,
    n: int = 4,
    sigma: float = 6.0,
) -> list[float]:
    """CIDEr-D of each candidate, 0 to 10: clipped counts and a penalty on the difference in length.

    Args:
        candidates: Tokenised sentences.
        references: For each candidate its tokenised references, at least one.
        frequencies: Document frequencies; None as for `cider`.
        n: Longest n-gram.
        sigma: Width of the length penalty, in bigrams.
    """
    return _score_all(candidates, references, frequencies, n, sigma, clip=True)


def _score_all(
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
    frequencies: DocumentFrequencies | None,
    n: int,
    sigma: float | None,
    clip: bool,
) -> list[float]:
    scorer = CiderScorer(document_frequencies(references, n) if frequencies is None else frequencies, n, sigma, clip)
    pairs = zip(candidates, references, strict=True)
    return [scorer.score(candidate, scorer.prepare(own)) for candidate, own in pairs]


def _norm(vector: dict[Ngram, float]) -> float:
    return math.sqrt(sum(weight * weight for weight in vector.values()))


def _bigrams(sentence: Sentence) -> int:
    return max(0, len(sentence) - 1)

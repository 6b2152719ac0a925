"""CIDEr and CIDEr-D: cosine of tf-idf weighted n-grams with the references (Vedantam et al. 2015, arXiv:1411.5726).

The scale is that of the authors' code: 0 to 10. Papers print the corpus mean times 100.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float, Int

from lrl_core.metrics.integers import Column
from lrl_core.metrics.ngram_batch import NOWHERE, NgramBatch, NgramTree, Words, number_words
from lrl_core.metrics.ngrams import Ngram, Sentence, ngram_counts
from lrl_core.metrics.reference_ngrams import LIMIT, Added, OneAtATime, ReferenceNgrams

Key = TypeVar("Key", bound=Hashable)


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


class CiderScorer(Generic[Key]):
    """Scores batches of candidates; what is counted of a prompt's references is remembered.

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
        self._words, self._documents = Words(), NgramTree()
        nodes, counts = _plant(self._documents, frequencies.counts, self._words, n)
        # The max keeps log defined for an empty corpus; every weight is then 0, as for a corpus of one document.
        # The entry at the end is that of an unknown n-gram, whose node is -1: its idf is that of a single document.
        self._idf = np.full(len(self._documents) + 1, math.log(max(1, frequencies.documents)))
        self._idf[nodes] -= np.log(np.maximum(1, counts))
        self._turn = OneAtATime()
        self._forget()

    def score(
        self, candidates: Sequence[Sentence], keys: Sequence[Key], tokenised: Callable[[Key], Sequence[Sentence]]
    ) -> Float[np.ndarray, " B"]:
        """CIDEr of each candidate, 0 to 10: 10 x mean over orders and references of the (clipped) cosine.

        Args:
            candidates: Tokenised sentences.
            keys: For each candidate what its references are remembered by.
            tokenised: Gives the tokenised references of a key, at least one; called for keys that are not remembered.
        """
        with self._turn:
            return self._score(candidates, keys, tokenised)

    def _score(
        self, candidates: Sequence[Sentence], keys: Sequence[Key], tokenised: Callable[[Key], Sequence[Sentence]]
    ) -> Float[np.ndarray, " B"]:
        if not self._references.room_for(keys, LIMIT):
            self._forget()
        self._weigh_new(self._references.add(keys, tokenised))
        pairs = self._references.pairs(keys)
        batch = NgramBatch.of(candidates, self.n, self._references.words)
        shared = list(self._references.shared(batch, pairs))
        idf = self._idf[self._document_nodes(batch, [(own.at, self._linked.values[own.node]) for own in shared])]
        weights = batch.times * idf
        norms = _norms(weights, batch)[pairs.candidate] * self._norms.values[pairs.reference]
        cosines = np.zeros(len(pairs.candidate))
        for order, own in enumerate(shared):
            said, wanted = weights[order, own.at][own.gram], own.times * idf[order, own.at][own.gram]
            dots = np.bincount(own.pair, (np.minimum(said, wanted) if self.clip else said) * wanted, len(cosines))
            cosines += np.divide(dots, norms[:, order], out=np.zeros(len(dots)), where=norms[:, order] > 0)
        if self.sigma is not None:
            mine, theirs = np.maximum(0, batch.lengths - 1), np.maximum(0, self._references.lengths - 1)  # bigrams
            difference = mine[pairs.candidate] - theirs[pairs.reference]
            cosines *= np.exp(-(difference**2) / (2 * self.sigma**2))
        return 10 * np.bincount(pairs.candidate, cosines, len(candidates)) / (self.n * pairs.count)

    def _document_nodes(
        self, batch: NgramBatch, known: Sequence[tuple[Int[np.ndarray, " G"], Int[np.ndarray, " G"]]]
    ) -> Int[np.ndarray, "n T"]:
        """The node of each n-gram among those of the documents; -1 where no document has it.

        Args:
            batch: Sentences.
            known: For each order where n-grams begin whose node is known already, and that node.
        """
        nodes = np.full(batch.times.shape, NOWHERE, np.int64)
        above = NgramTree.root(np.zeros_like(batch.words))
        for order, (at, linked) in enumerate(known):
            nodes[order, at] = linked
            left = np.flatnonzero((above != NOWHERE) & (nodes[order] == NOWHERE))
            nodes[order, left] = self._documents.children(above[left], batch.last_words(left, order))
            above = nodes[order]
        return nodes

    def _weigh_new(self, added: Added | None) -> None:
        """Remember the norms of new references, and which n-grams of the documents theirs are."""
        if added is None:
            return
        nothing = np.empty(0, np.int64)
        documents = self._document_nodes(added.batch, [(nothing, nothing)] * self.n)
        self._norms.extend(_norms(added.batch.times * self._idf[documents], added.batch))
        linked = np.empty(len(self._references.tree) - len(self._linked), np.int64)
        for own, (at, nodes) in zip(documents, added.found, strict=True):
            linked[nodes - len(self._linked)] = own[at]
        self._linked.extend(linked)

    def _forget(self) -> None:
        self._references: ReferenceNgrams[Key] = ReferenceNgrams(self.n, Words(self._words))
        self._linked, self._norms = Column(np.int32), Column(np.float64, self.n)  # of a node; of a reference


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
    scorer: CiderScorer[int] = CiderScorer(
        document_frequencies(references, n) if frequencies is None else frequencies, n, sigma, clip
    )
    if len(candidates) != len(references):
        raise ValueError(
            f"cider got {len(candidates)} candidates and {len(references)} sets of references; expected one set for "
            "each candidate. Repeat a prompt's references for each of its candidates."
        )
    return scorer.score(candidates, range(len(references)), references.__getitem__).tolist()


def _norms(weights: Float[np.ndarray, "n T"], batch: NgramBatch) -> Float[np.ndarray, "B n"]:
    """Lengths of the tf-idf vectors: one for each sentence and order."""
    squares = [np.bincount(batch.sentence, row, len(batch.lengths)) for row in weights**2]
    return np.sqrt(np.stack(squares, axis=1))


def _plant(
    tree: NgramTree, counts: dict[Ngram, int], words: Words, n: int
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Put n-grams up to order n into an empty tree under root 0 and their words into `words`; nodes and counts."""
    nodes, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for order in range(1, n + 1):
        listed = [ngram for ngram in counts if len(ngram) == order]
        flat = number_words(list(chain.from_iterable(listed)), words, grow=True)
        above = NgramTree.root(np.zeros(len(listed), np.int64))
        for word in flat.reshape(-1, order).T:
            above = tree.children(above, word, grow=True)
        nodes.append(above)
        numbers.append(np.fromiter(map(counts.__getitem__, listed), np.int64, len(listed)))
    return np.concatenate(nodes), np.concatenate(numbers)

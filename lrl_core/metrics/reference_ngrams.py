"""The n-grams of references, counted once per prompt and compared with a whole batch of candidates at once."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Int

from lrl_core.metrics.integers import Column
from lrl_core.metrics.ngram_batch import NgramBatch, NgramTree, Words, ragged
from lrl_core.metrics.ngrams import Sentence

Key = TypeVar("Key", bound=Hashable)

LIMIT = 1 << 23
"""N-grams of references kept between two calls, some 40 bytes each; five captions of a picture have about 200."""


class OneAtATime:
    """A lock that is pickled and copied with what it guards; the copy is open.

    A call that took too long and was given up may still be running when the next one comes.
    """

    def __init__(self) -> None:
        self._lock = Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["OneAtATime"], tuple[()]]:
        return OneAtATime, ()


@dataclass(frozen=True)
class Added:
    """References that are counted for the first time."""

    batch: NgramBatch
    """Their words and counts."""
    found: list[tuple[Int[np.ndarray, " G"], Int[np.ndarray, " G"]]]
    """For each order where an n-gram begins, and its node: all nodes from the first new one to the last occur."""


@dataclass(frozen=True)
class Pairs:
    """Every candidate beside each of its references; M pairs, those of one candidate stand together."""

    prompt: Int[np.ndarray, " B"]
    """Number of each candidate's prompt."""
    count: Int[np.ndarray, " B"]
    """How many references each candidate has."""
    first: Int[np.ndarray, " B"]
    """The first pair of each candidate."""
    candidate: Int[np.ndarray, " M"]
    """Which candidate."""
    reference: Int[np.ndarray, " M"]
    """Which of all references."""


@dataclass(frozen=True)
class Shared:
    """N-grams of one order that candidates share with references; entries of one n-gram stand together."""

    at: Int[np.ndarray, " G"]
    """Where the n-gram begins in the candidates."""
    node: Int[np.ndarray, " G"]
    """Its node among the references' n-grams."""
    gram: Int[np.ndarray, " M"]
    """For each reference that has it: which entry of `at`,"""
    pair: Int[np.ndarray, " M"]
    """which of the `Pairs`,"""
    times: Int[np.ndarray, " M"]
    """and how often it occurs there."""


class ReferenceNgrams(Generic[Key]):
    """The n-grams of the references of many prompts.

    Args:
        n: Longest n-gram.
        words: Words that have numbers from the start; those of references are added.
    """

    def __init__(self, n: int, words: Words) -> None:
        self.n, self.words = n, words
        self.tree = NgramTree()
        """A root for each prompt, a node for each distinct n-gram of its references."""
        self._prompts: dict[Key, int] = {}
        self._first_reference, self._lengths = Column(np.int64), Column(np.int64)  # of a prompt; of a reference
        self._first_entry = Column(np.int64)  # of a node: the references that have the n-gram
        self._reference, self._times = Column(np.int32), Column(np.int32)  # of an entry
        for starts in (self._first_reference, self._first_entry):
            starts.extend(np.zeros(1, np.int64))

    def __len__(self) -> int:
        """How many n-grams of references are kept."""
        return len(self._times)

    @property
    def lengths(self) -> Int[np.ndarray, " R"]:
        """Words in each reference."""
        return self._lengths.values

    def room_for(self, keys: Sequence[Key], limit: int) -> bool:
        """Whether there is nothing to add, or less kept than the limit."""
        return len(self) < limit or self._prompts.keys() >= set(keys)

    def add(self, keys: Sequence[Key], tokenised: Callable[[Key], Sequence[Sentence]]) -> Added | None:
        """Count the references of prompts that are new; None where all are known.

        Args:
            keys: What the references of a prompt are remembered by; repeats count once.
            tokenised: Gives the references of a key, at least one.
        """
        missing = [key for key in dict.fromkeys(keys) if key not in self._prompts]
        if not missing:
            return None
        rows = [tokenised(key) for key in missing]
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        if not sizes.all():
            raise ValueError(
                "ReferenceNgrams got a prompt without references; expected at least one each. Leave such prompts out."
            )
        batch = NgramBatch.of([text for row in rows for text in row], self.n, self.words, grow=True)
        prompt = len(self._prompts) + np.repeat(np.arange(len(rows)), sizes)
        found = list(self.tree.find(batch, prompt, grow=True))
        for times, (at, nodes) in zip(batch.times, found, strict=True):
            self._enter(batch.sentence[at], nodes, times[at])
        self._first_reference.extend(len(self._lengths) + np.cumsum(sizes))
        self._lengths.extend(batch.lengths)
        self._prompts.update(zip(missing, range(len(self._prompts), len(self._prompts) + len(missing)), strict=True))
        return Added(batch, found)

    def _enter(
        self, sentence: Int[np.ndarray, " G"], nodes: Int[np.ndarray, " G"], times: Int[np.ndarray, " G"]
    ) -> None:
        # Every node of a new prompt is new, and numbers follow on: entries sorted by node belong at the end.
        firsts = np.flatnonzero(times)
        order = firsts[np.argsort(nodes[firsts], kind="stable")]
        entries = np.bincount(nodes[order] - (len(self._first_entry) - 1))
        self._first_entry.extend(len(self) + np.cumsum(entries))
        self._reference.extend(len(self._lengths) + sentence[order])
        self._times.extend(times[order])

    def pairs(self, keys: Sequence[Key]) -> Pairs:
        """Every candidate beside each of its references.

        Args:
            keys: For each candidate what its references are remembered by; they must have been added.
        """
        prompts = np.fromiter(map(self._prompts.__getitem__, keys), np.int64, len(keys))
        firsts = self._first_reference.values[prompts]
        counts = self._first_reference.values[prompts + 1] - firsts
        return Pairs(prompts, counts, np.cumsum(counts) - counts, *ragged(firsts, counts))

    def shared(self, batch: NgramBatch, pairs: Pairs) -> Iterator[Shared]:
        """For each order the n-grams that candidates share with their references.

        Args:
            batch: The candidates.
            pairs: The same candidates beside their references.
        """
        # The first pair of a candidate is with its prompt's first reference, and both go on one by one.
        offset = pairs.first - self._first_reference.values[pairs.prompt]
        for at, nodes in self.tree.find(batch, pairs.prompt):
            firsts = self._first_entry.values[nodes]
            gram, entry = ragged(firsts, self._first_entry.values[nodes + 1] - firsts)
            pair = self._reference.values[entry] + offset[batch.sentence[at]][gram]
            yield Shared(at, nodes, gram, pair, self._times.values[entry])

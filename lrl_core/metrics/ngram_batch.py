"""The n-grams of a whole batch of sentences as arrays: counted, and looked up in a tree of known ones.

Nothing here is approximate. A word is a number, and an n-gram is the pair (n-gram without its last word, last word),
packed into one integer that no other pair gives.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from jaxtyping import Int

from lrl_core.metrics.integers import IntegerTable
from lrl_core.metrics.ngrams import Sentence

NOWHERE = -1
"""The node of an n-gram that a tree does not know."""
END = -1
"""Stands after each sentence in place of a word, so that no n-gram reaches into the next."""
_WORD_BITS = 32
"""Words are numbered below 2^31, and so are n-grams: a pair of both fits into 64 bits."""


class Words(dict[Hashable, int]):
    """The numbers of known words: 0, 1, 2, ...; -1 for any other word."""

    def __missing__(self, word: Hashable) -> int:
        return -1


@dataclass(frozen=True)
class NgramBatch:
    """Sentences one after the other, with a count for the n-gram of each order that begins at each of the T places."""

    words: Int[np.ndarray, " T"]
    """The words' numbers, and END after each sentence."""
    lengths: Int[np.ndarray, " B"]
    """Words in each sentence."""
    sentence: Int[np.ndarray, " T"]
    """Which sentence a place is in."""
    times: Int[np.ndarray, "n T"]
    """How often the n-gram occurs in its sentence, where it occurs first; 0 at its repeats and where none fits."""

    @classmethod
    def of(cls, sentences: Sequence[Sentence], n: int, words: Words, grow: bool = False) -> "NgramBatch":
        """Number the words and count n-grams up to order n.

        Args:
            sentences: Tokenised sentences.
            n: Longest n-gram.
            words: The words that have numbers.
            grow: Whether new words are added to `words`; if not, they get the next numbers in this batch only.
        """
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        sentence = np.repeat(np.arange(len(lengths)), lengths + 1)
        numbers = np.full(len(sentence), END)
        inside = np.ones(len(sentence), np.bool_)
        inside[np.cumsum(lengths + 1) - 1] = False
        numbers[inside] = number_words(list(chain.from_iterable(sentences)), words, grow)
        return cls(numbers, lengths, sentence, _times(numbers, sentence, n))

    def last_words(self, at: Int[np.ndarray, " G"], order: int) -> Int[np.ndarray, " G"]:
        """The words, or END, with which n-grams would end that begin at `at`; `order` is 0 for single words.

        The last place holds END, so that nothing changes where a place beyond it is read as the last one.
        """
        return self.words.take(at + order, mode="clip")


def number_words(flat: Sequence[Hashable], known: Words, grow: bool = False) -> Int[np.ndarray, " T"]:
    """The words as numbers.

    Args:
        flat: Words.
        known: Those that have numbers.
        grow: Whether new words are added to `known`; if not, they get the next numbers in this call only.
    """
    numbers = np.fromiter(map(known.__getitem__, flat), np.int64, len(flat))
    fresh: dict[Hashable, int] = known if grow else {}
    first = 0 if grow else len(known)
    for i in np.flatnonzero(numbers < 0).tolist():
        numbers[i] = fresh.setdefault(flat[i], first + len(fresh))
    return numbers


def _times(words: Int[np.ndarray, " T"], sentence: Int[np.ndarray, " T"], n: int) -> Int[np.ndarray, "n T"]:
    times = np.zeros((n, len(words)), np.int64)
    for order in range(min(n, len(words))):
        # One where the n-gram without its first word fits, and that word is none of END.
        times[order, : len(words) - order] = (times[order - 1, 1:][: len(words) - order] if order else 1) * (
            words[: len(words) - order] != END
        )
    bits = int(words.max(initial=0)).bit_length()
    # An n-gram can only repeat where the one without its last word does: each order looks at what is left of the last.
    at, same = np.flatnonzero(words != END), sentence[words != END]  # places; equal for equal n-grams one word shorter
    for order in range(n):
        inside = np.flatnonzero(times[order, at])
        at, same = at[inside], same[inside]
        arranged, keys = _sorted(same << bits | words[at + order])
        equal = np.zeros(len(keys) + 1, np.bool_)
        equal[1:-1] = keys[1:] == keys[:-1]
        repeated = np.flatnonzero(equal[1:] | equal[:-1])  # equal to the next key or to the one before
        at, keys = at[arranged[repeated]], keys[repeated]
        firsts = first_of_runs(keys)
        times[order, at] = 0
        times[order, at[firsts]] = counts = np.diff(firsts, append=len(keys))
        same = np.repeat(np.arange(len(firsts)), counts)
    return times


def _sorted(keys: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The order that sorts the keys (not negative), equal ones as they stand, and the sorted keys."""
    bits = len(keys).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits > 63:
        order = np.argsort(keys, kind="stable")
        return order, keys[order]
    # Each key takes its place along in bits of its own: sorting plain numbers is several times faster than argsort.
    both = np.sort(keys << bits | np.arange(len(keys)))
    return both & ((1 << bits) - 1), both >> bits


class NgramTree:
    """Known n-grams, in as many separate trees as there are roots: the node of an n-gram hangs under its parent's."""

    def __init__(self) -> None:
        self._edges = IntegerTable()

    def __len__(self) -> int:
        return len(self._edges)

    @staticmethod
    def root(numbers: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """The nodes of roots 0, 1, 2, ...: -2, -3, -4, ..., for -1 is no node."""
        return -2 - numbers

    def find(
        self, batch: NgramBatch, roots: Int[np.ndarray, " B"], grow: bool = False
    ) -> Iterator[tuple[Int[np.ndarray, " G"], Int[np.ndarray, " G"]]]:
        """For each order the known n-grams: where they begin in the batch, repeats included, and their nodes.

        Args:
            batch: Sentences.
            roots: Number of the root under which each sentence is looked up.
            grow: Whether missing n-grams are added; new nodes get the next numbers, order after order.
        """
        at, above = np.arange(len(batch.words)), self.root(roots)[batch.sentence]
        for order in range(len(batch.times)):
            nodes = self.children(above, batch.last_words(at, order), grow)
            known = np.flatnonzero(nodes != NOWHERE)  # what begins with an unknown n-gram is unknown
            at, above = at[known], nodes[known]
            yield at, above

    def children(
        self, parents: Int[np.ndarray, " G"], words: Int[np.ndarray, " G"], grow: bool = False
    ) -> Int[np.ndarray, " G"]:
        """The node under each parent for a word; -1 where there is none.

        Args:
            parents: Nodes; `root` gives those of roots.
            words: Word numbers; END is under no node.
            grow: Whether missing nodes are added.
        """
        edges = parents << _WORD_BITS | words  # -1 for END, which is the key of no other pair: no parent is -1
        found = self._edges.find(edges)
        if grow:
            missing = np.flatnonzero((found == NOWHERE) & (words != END))
            new = np.sort(edges[missing])
            self._edges.add(new[first_of_runs(new)])
            found[missing] = self._edges.find(edges[missing])
        return found


def first_of_runs(values: Int[np.ndarray, " N"]) -> Int[np.ndarray, " M"]:
    """Where each run of equal values begins.

    Args:
        values: Equal ones stand together.
    """
    return np.flatnonzero(np.concatenate([np.ones(min(1, len(values)), np.bool_), values[1:] != values[:-1]]))


def ragged(
    firsts: Int[np.ndarray, " N"], counts: Int[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Runs of numbers one after the other: for each number which run it is from, and the number.

    Args:
        firsts: Where each run begins.
        counts: How long it is, at least 1.
    """
    ends = np.cumsum(counts)
    begins = ends[:-1]  # of all runs but the first
    which, numbers = np.zeros((2, ends[-1] if len(ends) else 0), np.int64)
    which[begins] = 1
    # Sums of steps: 1 within a run, and from the end of a run to where the next begins.
    numbers += 1
    numbers[:1] = firsts[:1]
    numbers[begins] = firsts[1:] - firsts[:-1] - counts[:-1] + 1
    return np.cumsum(which), np.cumsum(numbers)

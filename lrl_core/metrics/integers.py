"""Integers by the hundred thousand: an array that grows, and a table that finds many of them at once."""

from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Int, Shaped

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: multiplying by it spreads keys that differ little (Knuth, volume 3, section 6.4)."""


class Column:
    """An array that grows at its end; its room doubles, so that each value is copied a few times in all.

    Args:
        dtype: Of the values.
        width: How many numbers one value has; 0 for a plain number.
    """

    def __init__(self, dtype: npt.DTypeLike, width: int = 0) -> None:
        self._room = np.empty((16, width) if width else 16, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> Shaped[np.ndarray, "N ..."]:
        """What has been added so far; a view that the next `extend` may leave behind."""
        return self._room[: self._size]

    def extend(self, values: Shaped[npt.NDArray[Any], "M ..."]) -> None:
        """Add values at the end."""
        size = self._size + len(values)
        if size > len(self._room):
            room = np.empty((max(size, 2 * len(self._room)), *self._room.shape[1:]), self._room.dtype)
            room[: self._size] = self.values
            self._room = room
        self._room[self._size : size] = values
        self._size = size


class IntegerTable:
    """Numbers distinct integers 0, 1, 2, ... in the order they are added, and finds the numbers of many at once.

    A hash table with open addressing in arrays: keys that want a taken slot go on to others. A key is
    found by comparing all its bits, so that equal hashes never confuse two keys.
    """

    def __init__(self) -> None:
        self._keys = Column(np.int64)
        self._slots = np.full(16, -1, np.int32)  # the number of the key that stands there; -1: free

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """The number of each key; -1 for one that was never added."""
        if not len(self):
            return np.full(len(keys), -1)
        known, last = self._keys.values, len(self._slots) - 1
        at, step = self._places(keys)
        numbers = self._slots[at].astype(np.int64)
        # A free slot's -1 reads the last key here; whatever that says, `numbers` says -1 already.
        others = np.flatnonzero((known[numbers] != keys) & (numbers >= 0))
        at, step, sought = at[others], step[others], keys[others]
        while others.size:
            at = (at + step) & last
            numbers[others] = there = self._slots[at].astype(np.int64)
            on = np.flatnonzero((known[there] != sought) & (there >= 0))
            others, at, step, sought = others[on], at[on], step[on], sought[on]
        return numbers

    def add(self, keys: Int[np.ndarray, " N"]) -> None:
        """Give numbers to keys, which must differ from each other and from those that have one."""
        left = np.arange(len(self), len(self) + len(keys), dtype=np.int32)
        self._keys.extend(keys)
        if 4 * len(self) > len(self._slots):  # at most a quarter full: few keys miss the slot they want
            self._slots = np.full(1 << (4 * len(self) - 1).bit_length(), -1, np.int32)
            left = np.arange(len(self), dtype=np.int32)
        at, step = self._places(self._keys.values[left])
        while left.size:
            free = self._slots[at] < 0
            self._slots[at[free]] = left[free]  # where several want one slot, one of them gets it
            lost = np.flatnonzero(self._slots[at] != left)
            left, at, step = left[lost], (at[lost] + step[lost]) & (len(self._slots) - 1), step[lost]

    def _places(self, keys: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
        """The slot each key wants, and how far on it looks if that is taken: odd, so that it comes by every slot."""
        # The product wraps around 2^64, as intended; its highest bits depend on all bits of the key.
        mixed = (keys.view(np.uint64) * _GOLDEN).view(np.int64)
        bits = len(self._slots).bit_length() - 1
        return (mixed >> (64 - bits)) & (len(self._slots) - 1), (mixed >> 16) | 1

"""Insertions, deletions and substitutions from one line to another (Levenshtein 1966), many lines at once."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Int


def edit_distances(said: Sequence[Sequence[Hashable]], wanted: Sequence[Sequence[Hashable]]) -> Int[np.ndarray, " N"]:
    """The least number of insertions, deletions and substitutions that make each wanted line of what was said.

    Args:
        said: Lines of letters (strings) or of words.
        wanted: As many.
    """
    ids: dict[Hashable, int] = {}
    (one, lengths), (other, others) = _packed(said, ids, -1), _packed(wanted, ids, -2)
    columns = np.arange(other.shape[1] + 1)
    row = np.tile(columns, (len(one), 1))
    for i in range(one.shape[1]):
        kept_or_replaced = row[:, :-1] + (one[:, i : i + 1] != other)
        new = np.concatenate([np.full((len(row), 1), i + 1), np.minimum(row[:, 1:] + 1, kept_or_replaced)], axis=1)
        new = np.minimum.accumulate(new - columns, axis=1) + columns  # and whatever is inserted behind it
        row = np.where((i < lengths)[:, None], new, row)
    return row[np.arange(len(row)), others]


def _packed(
    lines: Sequence[Sequence[Hashable]], ids: dict[Hashable, int], fill: int
) -> tuple[Int[np.ndarray, "N L"], Int[np.ndarray, " N"]]:
    lengths = np.array([len(line) for line in lines], dtype=np.int64)
    packed = np.full((len(lines), int(lengths.max(initial=0))), fill)
    for row, line in enumerate(lines):
        packed[row, : len(line)] = [ids.setdefault(item, len(ids)) for item in line]
    return packed, lengths

"""Edit distances against hand-made numbers and a plain recursion."""

import random
from functools import cache

import numpy as np

from lrl_core.metrics.edit_distance import edit_distances


def plain(one, other):
    """The definition, letter by letter."""

    @cache
    def left(i, j):
        if i == 0 or j == 0:
            return i + j
        same = one[i - 1] == other[j - 1]
        return min(left(i - 1, j) + 1, left(i, j - 1) + 1, left(i - 1, j - 1) + (not same))

    return left(len(one), len(other))


def test_by_hand():
    said, wanted = ["kitten", "", "abc", "flaw", "same"], ["sitting", "abc", "", "lawn", "same"]
    assert edit_distances(said, wanted).tolist() == [3, 3, 3, 2, 0]
    assert edit_distances([["a", "man"], ["the"]], [["a", "big", "man"], ["a"]]).tolist() == [1, 1]


def test_random_lines_of_unequal_lengths():
    draw = random.Random(0)
    lines = ["".join(draw.choice("ab c") for _ in range(draw.randrange(9))) for _ in range(120)]
    said, wanted = lines[:60], lines[60:]
    expected = [plain(*pair) for pair in zip(said, wanted, strict=True)]
    assert edit_distances(said, wanted).tolist() == expected
    assert edit_distances(wanted, said).tolist() == expected


def test_nothing_to_compare():
    assert edit_distances([], []).shape == (0,)
    assert np.array_equal(edit_distances(["", ""], ["", "a"]), [0, 1])

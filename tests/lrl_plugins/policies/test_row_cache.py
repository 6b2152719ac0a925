"""Keys and values in memory set aside: the same as in the library's growing cache, whatever rows do."""

import pytest
import torch
from transformers import DynamicCache

from lrl_plugins.policies.row_cache import ROOM, RowCache


def states(rows, columns, seed):
    return torch.randn(rows, 2, columns, 4, generator=torch.Generator().manual_seed(seed))


def both(script):
    """Play a script of writes ("write", columns) and reorders ("rows", list) on both caches; what each holds."""
    ours, theirs = RowCache(), DynamicCache()
    rows = 3
    for place, (what, value) in enumerate(script):
        if what == "write":
            for layer in range(2):
                keys, values = states(rows, value, place * 2 + layer), states(rows, value, 100 + place * 2 + layer)
                mine, other = ours.update(keys, values, layer), theirs.update(keys, values, layer)
                assert torch.equal(mine[0], other[0])
                assert torch.equal(mine[1], other[1])
        else:
            index = torch.tensor(value)
            ours.reorder_cache(index)
            theirs.reorder_cache(index)
            rows = len(value)
    assert ours.get_seq_length() == theirs.get_seq_length()
    return ours, theirs


SCRIPTS = {
    "one prompt, several episodes": [("write", 4), ("rows", [0, 0, 1, 1, 2, 2]), ("write", 1), ("write", 1)],
    "finished rows leave": [("write", 3), ("write", 1), ("rows", [0, 2]), ("write", 1), ("rows", [1]), ("write", 1)],
    "the last takes a place": [
        ("write", 3), ("rows", [0, 0, 1, 1, 2, 2]), ("write", 1), ("rows", [0, 5, 2, 4]), ("write", 1)
    ],
    "beams of one prompt": [
        ("write", 3), ("rows", [0, 0, 1, 1, 2, 2]), ("write", 1), ("rows", [1, 1, 3, 2, 4, 4]), ("write", 2),
        ("rows", [1, 0, 2, 2, 5, 5]), ("write", 1), ("rows", [4, 5, 2, 3]), ("write", 1)
    ],
    "growing again": [("write", 2), ("rows", [0]), ("write", 1), ("rows", [0, 0, 0, 0]), ("write", 1)],
    "more columns than set aside": [("write", 2), ("write", ROOM - 1), ("write", 3), ("rows", [2, 0]), ("write", 1)],
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_holds_what_the_growing_cache_holds(script):
    ours, theirs = both(script)
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert torch.equal(mine.keys, other.keys)
        assert torch.equal(mine.values, other.values)


def test_a_step_copies_nothing():
    cache = RowCache()
    cache.update(states(3, 2, 0), states(3, 2, 1), 0)
    before = cache.layers[0].keys.data_ptr()
    cache.update(states(3, 1, 2), states(3, 1, 3), 0)
    assert cache.layers[0].keys.data_ptr() == before

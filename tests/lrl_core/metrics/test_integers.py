import numpy as np
import pytest

from lrl_core.metrics.integers import Column, IntegerTable


def test_a_column_keeps_what_is_added():
    column, wide = Column(np.int32), Column(np.float64, 3)
    kept = []
    for size in (0, 1, 15, 3, 100, 0, 7):
        values = np.arange(size) + len(kept)
        column.extend(values)
        wide.extend(np.stack([values] * 3, axis=1))
        kept += values.tolist()
    assert column.values.tolist() == kept
    assert wide.values[:, 2].tolist() == kept
    assert len(column) == len(wide) == len(kept)


@pytest.mark.parametrize(
    "keys",
    [
        np.arange(5000),
        np.arange(5000) << 32,  # only high bits differ
        -np.arange(1, 5001) << 32 | 7,
        np.unique(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 5000)),
    ],
    ids=["following", "high_bits", "negative", "random"],
)
def test_a_table_finds_what_a_dict_finds(keys):
    keys = np.random.default_rng(1).permutation(keys)
    table, numbers = IntegerTable(), {}
    assert table.find(keys).tolist() == [-1] * len(keys)
    for chunk in np.split(keys[:4000], [1, 2, 17, 400, 400, 3000]):
        table.add(chunk)
        numbers.update({key: len(numbers) + i for i, key in enumerate(chunk.tolist())})
        assert table.find(keys).tolist() == [numbers.get(key, -1) for key in keys.tolist()]
    assert len(table) == 4000
    assert table.find(np.empty(0, np.int64)).size == 0
    assert table.find(np.repeat(keys[:2], 3)).tolist() == [0, 0, 0, 1, 1, 1]

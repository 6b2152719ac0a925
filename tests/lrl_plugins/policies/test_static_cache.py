"""Memory of fixed size: what it has room for, what it shows of a cache that stands in it, and where it stays."""

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache

from lrl_plugins.policies.row_cache import RowCache
from lrl_plugins.policies.static_cache import Arena, Shape, caches_of, rows_of, size


def filled(rows, columns, seed, layers=2):
    generator = torch.Generator().manual_seed(seed)
    cache = RowCache()
    for layer in range(layers):
        keys, values = (torch.randn(rows, 2, columns, 4, generator=generator) for _ in range(2))
        cache.update(keys, values, layer)
    return cache


@pytest.mark.parametrize(("count", "least", "room"), [(1, 8, 8), (8, 8, 8), (9, 8, 16), (64, 8, 64), (65, 8, 128)])
def test_sizes_are_powers_of_two(count, least, room):
    assert size(count, least) == room


def test_room_for_more_tokens_is_set_aside():
    assert Shape.of(filled(3, 5, 0)) == (8, 64, 0)
    assert Shape.of(filled(9, 40, 0)) == (16, 128, 0)
    assert Shape.of(EncoderDecoderCache(filled(3, 1, 0), filled(3, 17, 1))) == (8, 64, 32)


def test_larger_memory_serves_fewer_rows_but_no_other_lines():
    shape = Shape(16, 64, 32)
    assert shape.holds(Shape(8, 64, 32))
    assert not shape.holds(Shape(32, 64, 32))
    assert not shape.holds(Shape(16, 32, 32))
    assert not shape.holds(Shape(16, 64, 16))


def test_a_cache_goes_on_in_it_and_its_rows_move_there():
    cache, twin = filled(3, 5, 0), filled(3, 5, 0)
    arena = Arena(Shape.of(cache), cache)
    assert not arena.holds(cache)
    arena.take_in(cache)
    assert arena.holds(cache)
    for one in (cache, twin):
        one.reorder_cache(torch.tensor([2, 1]))
        one.update(torch.ones(2, 2, 1, 4), torch.ones(2, 2, 1, 4), 1)
    for layer, other, (keys, values) in zip(rows_of(cache), rows_of(twin), arena.own, strict=True):
        assert torch.equal(layer.keys, other.keys)
        assert torch.equal(layer.values, other.values)
        assert torch.equal(keys[:2, :, : layer.columns], other.keys)
        assert torch.equal(values[:2, :, : layer.columns], other.values)
    assert arena.holds(cache)


def test_more_rows_than_before_leave_it():
    cache = filled(3, 5, 0)
    arena = Arena(Shape.of(cache), cache)
    arena.take_in(cache)
    cache.reorder_cache(torch.tensor([0, 0, 1, 1, 2, 2]))
    assert not arena.holds(cache)


def test_a_step_over_fewer_rows_reads_the_same_memory():
    cache = filled(20, 5, 0)
    arena = Arena(Shape.of(cache), cache)
    arena.take_in(cache)
    many, few = arena.desk(32), arena.desk(8)
    assert arena.desk(8) is few
    assert few.tokens.data_ptr() == many.tokens.data_ptr()
    assert few.cache.layers[1].keys.data_ptr() == many.cache.layers[1].keys.data_ptr() == arena.own[1][0].data_ptr()
    assert few.cache.layers[1].keys.shape == (8, 2, 64, 4)
    assert few.mask.shape == (8, 1, 1, 64)


def test_what_the_next_step_reads():
    cache = filled(3, 5, 0)
    arena = Arena(Shape.of(cache), cache)
    arena.take_in(cache)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]).bool()[:, None, None]
    shape = arena.write(torch.tensor([7, 8, 9]), torch.tensor([5, 4, 3]), mask, None, cache)
    desk = arena.desk(shape.rows)
    assert desk.tokens.tolist() == [7, 8, 9, 0, 0, 0, 0, 0]
    assert desk.positions.tolist() == [5, 4, 3, 0, 0, 0, 0, 0]
    assert desk.mask.sum((1, 2, 3)).tolist() == [6, 5, 4, 1, 1, 1, 1, 1]
    assert torch.equal(desk.mask[:3, ..., :6], mask)
    layer = desk.cache.layers[0]
    before = layer.keys.clone()
    desk.cache.update(torch.ones(8, 2, 1, 4), torch.ones(8, 2, 1, 4), 0)
    assert bool((layer.keys[:, :, 5] == 1).all())
    assert torch.equal(layer.keys[:, :, :5], before[:, :, :5])
    assert not layer.keys[:, :, 6:].any()


def test_other_caches_are_refused():
    with pytest.raises(TypeError, match="DynamicCache, which is no memory of fixed size"):
        caches_of(DynamicCache())

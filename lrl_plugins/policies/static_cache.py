"""Keys and values in memory of fixed size at a fixed address, as compiled kernels and CUDA graphs need them.

A batch of episodes borrows an arena and writes into its first rows. Finished rows leave as they do from a `RowCache`,
whose layers stand in the arena; the kernels then read half as many rows, or a quarter: few sizes, so few kernels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import Cache, EncoderDecoderCache
from transformers.cache_utils import CacheLayerMixin

from lrl_plugins.policies.row_cache import RowCache, RowLayer

ROOM = 32
"""Columns set aside for tokens to come, at least; the next power of two is taken."""

LEAST_COLUMNS = 64
"""Fewer columns are not worth kernels of their own."""

LEAST_ROWS = 8
"""Fewer rows are not worth kernels of their own: reading the weights then costs as much as reading these rows."""

LEAST_SOURCE = 16
"""Fewer encoder states are not worth kernels of their own either."""


def size(count: int, least: int) -> int:
    """The smallest power of two that is at least as much as both."""
    return max(least, 1 << (count - 1).bit_length())


class Shape(NamedTuple):
    """How much an arena has room for."""

    rows: int
    """Episodes."""
    columns: int
    """Tokens of each."""
    source: int
    """Encoder states of each; 0 without an encoder."""

    @classmethod
    def of(cls, cache: Cache) -> "Shape":
        """Room for what stands in a cache and for more tokens, in sizes that occur again."""
        own, other = rows_of(cache), source_of(cache)
        columns = size(own[0].columns + ROOM, LEAST_COLUMNS)
        return cls(size(own[0].rows, LEAST_ROWS), columns, size(other[0].columns, LEAST_SOURCE) if other else 0)

    def holds(self, other: "Shape") -> bool:
        """Whether as many rows, and lines of just that size, fit in."""
        return self.rows >= other.rows and self[1:] == other[1:]


class FixedLayer(CacheLayerMixin):
    """One layer's keys and values, all columns of them; what is written goes to the column that a tensor names.

    Args:
        buffers: Keys and values [rows, heads, columns, width].
        at: The column, [1].
    """

    is_compileable = True

    def __init__(self, buffers: list[Tensor], at: Tensor) -> None:
        super().__init__()
        self.keys, self.values = buffers
        self.at, self.is_initialized = at, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """It is there from the beginning."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one column; all columns, those behind it too."""
        assert self.keys is not None
        assert self.values is not None
        self.keys.index_copy_(2, self.at, key_states)
        self.values.index_copy_(2, self.at, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """All columns, since which are in use only the mask says."""
        assert self.keys is not None
        return self.keys.shape[2]

    def get_max_length(self) -> int:
        """All columns."""
        return self.get_seq_length()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """All columns, from the first."""
        return self.get_seq_length(), 0


class Desk(NamedTuple):
    """What a step over the first rows of an arena reads and writes: always the same memory."""

    tokens: Int[Tensor, " r"]
    positions: Int[Tensor, " r"]
    mask: Bool[Tensor, "r 1 1 L"]
    cache: Cache
    cross_mask: Bool[Tensor, "r 1 1 S"] | None


class Arena:
    """Memory for the keys, values and masks of one batch of episodes, kept for the next one.

    Args:
        shape: How much of it.
        like: A cache whose layers are as wide.
    """

    def __init__(self, shape: Shape, like: Cache) -> None:
        self.shape = shape
        own, other = rows_of(like), source_of(like)
        self.device, self.dtype = own[0].device, own[0].dtype
        self.own = [self._buffers(layer, shape.columns) for layer in own]
        self.other = [self._buffers(layer, shape.source) for layer in other]
        self.at = _fixed(torch.zeros(1, dtype=torch.long, device=self.device))
        self.tokens, self.positions = self._zeros(shape.rows).long(), self._zeros(shape.rows).long()
        self.mask = self._zeros(shape.rows, 1, 1, shape.columns).bool()
        self.cross_mask = self._zeros(shape.rows, 1, 1, shape.source).bool() if other else None
        self.desks: dict[int, Desk] = {}
        self.borrower: Callable[[], object | None] = lambda: None

    def take_in(self, cache: Cache) -> None:
        """Let the layers of a cache go on here. Whatever stood here goes: 0 x NaN would be NaN behind a mask, too."""
        for layers, memory in ((rows_of(cache), self.own), (source_of(cache), self.other)):
            for layer, buffers in zip(layers, memory, strict=True):
                for buffer in buffers:
                    buffer.zero_()
                layer.move_to(buffers)
        for mask in (self.mask, self.cross_mask):
            if mask is not None:
                mask.zero_()
                mask[..., 0] = True  # rows that nobody uses look at something, too
        for part in caches_of(cache):
            part.settle()

    def holds(self, cache: Cache) -> bool:
        """Whether a cache stands here, with room for one more column."""
        layer = rows_of(cache)[0]
        return layer.buffers[0] is self.own[0][0] and layer.columns < self.shape.columns

    def write(
        self, tokens: Tensor, positions: Tensor | int, mask: Tensor | None, cross_mask: Tensor | None, cache: Cache
    ) -> Shape:
        """Put down what the next step reads, and say how much that is."""
        rows, at = len(tokens), rows_of(cache)[0].columns
        self.at.fill_(at)
        self.tokens[:rows] = tokens
        self.positions[:rows] = positions
        self.mask[:rows, ..., : at + 1] = True if mask is None else mask
        if self.cross_mask is not None:
            seen = source_of(cache)[0].columns
            self.cross_mask[:rows, ..., :seen] = True if cross_mask is None else cross_mask
        return self.shape._replace(rows=min(size(rows, LEAST_ROWS), self.shape.rows))

    def desk(self, rows: int) -> Desk:
        """Where a step over so many rows reads and writes."""
        if rows not in self.desks:
            own = Cache(layers=[self._layer(buffers, rows) for buffers in self.own])
            other = Cache(layers=[self._layer(buffers, rows) for buffers in self.other]) if self.other else None
            cache = own if other is None else EncoderDecoderCache(own, other)
            seen = None if self.cross_mask is None else _fixed(self.cross_mask[:rows])
            tokens, positions, mask = (_fixed(part[:rows]) for part in (self.tokens, self.positions, self.mask))
            self.desks[rows] = Desk(tokens, positions, mask, cache, seen)
        return self.desks[rows]

    def _layer(self, buffers: list[Tensor], rows: int) -> FixedLayer:
        return FixedLayer([_fixed(buffer[:rows]) for buffer in buffers], self.at)

    def _buffers(self, layer: RowLayer, columns: int) -> list[Tensor]:
        shapes = [buffer.shape for buffer in layer.buffers]
        return [self._zeros(self.shape.rows, heads, columns, width) for _, heads, _, width in shapes]

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


def _fixed(tensor: Tensor) -> Tensor:
    """Tell the compiler that this memory stays where it is: a CUDA graph then reads and writes it in place."""
    torch._dynamo.mark_static_address(tensor, guard=False)
    return tensor


def caches_of(cache: Cache) -> list[RowCache]:
    """Self-attention's cache, and cross-attention's where there is one; TypeError where they are of another kind."""
    parts: list[Any] = [cache]
    if isinstance(cache, EncoderDecoderCache):
        parts = [cache.self_attention_cache, cache.cross_attention_cache]
    for part in parts:
        if not isinstance(part, RowCache):
            raise TypeError(f"it remembers in a {type(part).__name__}, which is no memory of fixed size")
    return parts


def rows_of(cache: Cache) -> list[RowLayer]:
    """The layers of self-attention."""
    return caches_of(cache)[0].row_layers()


def source_of(cache: Cache) -> list[RowLayer]:
    """The layers of cross-attention; none without an encoder."""
    return [layer for part in caches_of(cache)[1:] for layer in part.row_layers()]

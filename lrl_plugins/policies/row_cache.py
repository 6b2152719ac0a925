"""Keys and values in memory set aside beforehand: a step writes one column, a finished row gives its place away."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Columns set aside beyond those in use."""


class RowLayer(DynamicLayer):
    """One layer's keys and values [rows, heads, columns, width], as views into buffers with room to grow.

    The library's own growing layer copies everything it holds at every step; this one copies when the room is used up.
    """

    buffers: list[Tensor]
    """Keys and values, with rows and columns that are not in use."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin empty."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True
        self.columns = 0
        self._own([key_states[:, :, :0], value_states[:, :, :0]], key_states.shape[2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write more columns; everything so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first, self.columns = self.columns, self.columns + key_states.shape[2]
        if self.columns > self.buffers[0].shape[2]:
            self._own([buffer[: self.rows, :, :first] for buffer in self.buffers], self.columns)
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[: self.rows, :, first : self.columns] = states
        return self._look()

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.columns if self.is_initialized else 0

    def spread(self, rows: Tensor) -> None:
        """Let row i be what row rows[i] was, in new memory: there may be more rows than before."""
        self._own([buffer[rows, :, : self.columns] for buffer in self.buffers], self.columns)
        self._look()

    def move(self, to: Tensor, rows: Tensor, first: int, left: int) -> None:
        """Let rows `to` be what other rows were, from a column on, and keep so many rows."""
        for buffer in self.buffers:
            buffer[to, :, first : self.columns] = buffer[rows, :, first : self.columns]
        self.rows = left
        self._look()

    def move_to(self, buffers: list[Tensor]) -> None:
        """Go on in other memory, which has room for all that is in use."""
        for new, old in zip(buffers, self.buffers, strict=True):
            new[: self.rows, :, : self.columns] = old[: self.rows, :, : self.columns]
        self.buffers = buffers
        self._look()

    def _own(self, states: list[Tensor], columns: int) -> None:
        """Copy what is there into buffers with room for more columns."""
        self.rows = states[0].shape[0]
        self.buffers = []
        for old in states:
            rows, heads, used, width = old.shape
            buffer = old.new_empty(rows, heads, columns + ROOM, width)
            buffer[:, :, :used] = old
            self.buffers.append(buffer)

    def _look(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[: self.rows, :, : self.columns] for buffer in self.buffers)
        return self.keys, self.values


class RowCache(Cache):
    """As many such layers as the model turns out to have. Rows made of one prompt share its columns: these stay."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=RowLayer)
        self.origin: Tensor | None = None  # which prompt each row was made of, and how many columns they share
        self.shared = 0

    def row_layers(self) -> list[RowLayer]:
        """The layers."""
        return [layer for layer in self.layers if isinstance(layer, RowLayer)]

    def settle(self) -> None:
        """Let rows move within the memory in which they stand, though none has moved yet."""
        if self.origin is None:
            self.origin = torch.arange(self.row_layers()[0].rows, device=self.row_layers()[0].device)
            self.shared = self.get_seq_length()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let row i be what row beam_idx[i] was; rows that stay where they are cost nothing."""
        layers = self.row_layers()
        if self.origin is None:
            self.origin, self.shared = beam_idx, self.get_seq_length()
            for layer in layers:
                layer.spread(beam_idx)
            return
        origin = self.origin[beam_idx]
        if len(beam_idx) > len(self.origin):
            self.origin = origin
            for layer in layers:
                layer.spread(beam_idx)
            return
        to = (beam_idx != torch.arange(len(beam_idx), device=beam_idx.device)).nonzero().squeeze(1)
        alike = bool((origin[to] == self.origin[to]).all())
        self.origin = origin
        for layer in layers:
            layer.move(to, beam_idx[to], self.shared if alike else 0, len(beam_idx))

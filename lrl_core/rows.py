"""Batched dataclasses: everything in them has one entry per row, so that rows can be taken, joined and moved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

Batch = TypeVar("Batch", bound="Rows")


@dataclass(frozen=True)
class Rows:
    """Batched dataclass: every tensor, tuple and nested batch has one entry per row."""

    def to(self: Batch, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking), lambda rows: rows)

    def pin_memory(self: Batch) -> Batch:
        """The same batch in page-locked memory, for loaders that copy to a GPU."""
        return self._map(lambda tensor: tensor.pin_memory(), lambda rows: rows)

    def select(self: Batch, rows: Int[Tensor, " N"]) -> Batch:
        """The rows with these indices, in this order; an index may occur several times."""
        listed = rows.tolist()
        return self._map(lambda tensor: tensor[rows], lambda items: tuple(items[i] for i in listed) if items else ())

    @classmethod
    def cat(cls: type[Batch], parts: Sequence[Batch]) -> Batch:
        """The rows of all parts, in order; lines are filled up with 0 to the longest. One part comes back as it is."""
        if len(parts) == 1:
            return parts[0]
        return cls(**{f.name: joined(f.name, [getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def _map(self: Batch, on_tensor: Callable[[Tensor], Tensor], on_tuple: Callable[[tuple], tuple]) -> Batch:
        def mapped(value: Any) -> Any:
            if isinstance(value, Tensor):
                return on_tensor(value)
            if isinstance(value, Rows):
                return value._map(on_tensor, on_tuple)
            if isinstance(value, dict):
                return {key: mapped(item) for key, item in value.items()}
            return on_tuple(value) if isinstance(value, tuple) else value

        return replace(self, **{f.name: mapped(getattr(self, f.name)) for f in fields(self)})


def joined(name: str, values: list[Any]) -> Any:
    """One value of the values that parts of a batch hold in the same field."""
    first = values[0]
    if isinstance(first, Tensor) and all(isinstance(value, Tensor) for value in values):
        return _joined_lines(values)
    if isinstance(first, Rows):
        return type(first).cat(values)
    if isinstance(first, dict) and all(value.keys() == first.keys() for value in values):
        return {key: joined(f"{name}[{key!r}]", [value[key] for value in values]) for key in first}
    if isinstance(first, tuple) and all(isinstance(value, tuple) for value in values):
        return tuple(item for value in values for item in value)
    if not any(isinstance(value, Tensor) for value in values) and all(value == first for value in values):
        return first
    raise ValueError(
        f"Parts of one batch differ in {name}: got {[type(value).__name__ for value in values]}; expected the same "
        "kind of value in each. Join only what one decoder, task and reward made."
    )


def _joined_lines(lines: list[Tensor]) -> Tensor:
    if len({line.shape[1:] for line in lines}) == 1:
        return torch.cat(lines)
    widest = [max(widths) for widths in zip(*(line.shape[1:] for line in lines), strict=True)]
    return torch.cat([_widened(line, widest) for line in lines])


def _widened(line: Tensor, widths: Sequence[int]) -> Tensor:
    """The same rows with every later axis filled up with 0 to the given width."""
    missing = [(0, width - had) for width, had in zip(widths, line.shape[1:], strict=True)]
    return torch.nn.functional.pad(line, [side for pair in reversed(missing) for side in pair])

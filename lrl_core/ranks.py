"""What the processes of a distributed run tell each other; on one process each is its own argument."""

from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

Item = TypeVar("Item")


def world_size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """The elementwise sum over all ranks, the same on each; the argument is left as it is."""
    if world_size() == 1:
        return values
    total = values.clone()
    torch.distributed.all_reduce(total)
    return total


def fewest_over_ranks(count: int, device: torch.device) -> int:
    """The smallest of the ranks' counts, the same on each.

    Args:
        count: This rank's.
        device: Where ranks talk to each other.
    """
    counts = torch.zeros(world_size(), dtype=torch.long, device=device)
    counts[rank()] = count
    return int(sum_over_ranks(counts).min())


def from_first_rank(value: Any) -> Any:
    """What the first rank gives, on every rank; all of them must ask.

    Args:
        value: The first rank's counts.
    """
    if world_size() == 1:
        return value
    told = [value]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def of_each_rank(item: Item) -> list[Item]:
    """What each rank gives, in their order, on every rank; all of them must ask."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(items, item)
    return items


def merged_over_ranks(rows: dict[str, Item]) -> dict[str, Item]:
    """The rows of all ranks, sorted by id, so that sums do not depend on who had which.

    Args:
        rows: This rank's, by id; of rows of several ranks with one id the first rank's counts.
    """
    merged: dict[str, Item] = {}
    for shard in of_each_rank(rows):
        merged = shard | merged
    return dict(sorted(merged.items()))

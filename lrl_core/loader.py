"""A data loader that knows where it stands: shuffled, shared out over ranks and resumable in the middle of an epoch."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lrl_core.ranks import rank, world_size


class EpochSampler:
    """Says which rows each batch of this rank holds: a pure function of seed, epoch, rank and number of ranks.

    Lightning calls `set_epoch` of a loader's `sampler` before every epoch.

    Args:
        rows: How many rows the data set has.
        batch_size: Rows per batch and rank.
        shuffle: Whether every epoch has an order of its own.
        trim: True leaves out the last rows that do not fill a batch on every rank (training); False shows every row,
            a few of them on two ranks where the rows do not divide (evaluation: the metrics count an id once).
        seed: Of the order.
        name: What the rows are, for messages.
    """

    def __init__(self, rows: int, batch_size: int, shuffle: bool, trim: bool, seed: int, name: str) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.trim = trim
        self.seed = seed
        self.name = name
        self.epoch = 0
        self.position = 0
        """Batches handed out in this epoch."""

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        world = world_size()
        if not self.trim:
            return -(-self.rows // (self.batch_size * world))
        batches = self.rows // (self.batch_size * world)
        if batches == 0:
            raise ValueError(
                f"{self.name}: got {self.rows} rows for batches of {self.batch_size} on {world} rank(s), expected at "
                f"least {self.batch_size * world}, one batch per rank. Lower batch_size or add data."
            )
        return batches

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of `epoch`; naming the epoch that is under way changes nothing."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def order(self) -> list[int]:
        """All rows in this epoch's order, before they are shared out."""
        if not self.shuffle:
            return list(range(self.rows))
        return torch.randperm(self.rows, generator=self.generator()).tolist()

    def batches(self) -> list[list[int]]:
        """This rank's rows of the whole epoch, batch by batch."""
        here, world = rank(), world_size()
        size, order = self.batch_size, self.order()
        if self.trim:
            return [order[(i * world + here) * size :][:size] for i in range(len(self))]
        order = (order * world)[: -(-len(order) // world) * world]
        mine = order[here::world]
        return [mine[i : i + size] for i in range(0, len(mine), size)]

    def generator(self) -> torch.Generator:
        """A generator of this epoch's own, so that the global one is left alone."""
        return torch.Generator().manual_seed((self.seed << 24) + self.epoch)

    def layout(self) -> dict[str, int | bool]:
        """What must be the same for a position within an epoch to mean the same rows."""
        world = world_size()
        return {
            "rows": self.rows, "batch_size": self.batch_size, "ranks": world, "seed": self.seed, "shuffle": self.shuffle
        }  # fmt: skip


class ResumableLoader:
    """Loads batches; its position is part of Lightning's checkpoint, so a run goes on at the exact next batch.

    It holds a torch `DataLoader` and is none: Lightning rebuilds `DataLoader`s with samplers of its own (distributed
    runs, `predict`, `overfit_batches`) and would lose rank, epoch and position. Anything else it leaves as it is, so
    `use_distributed_sampler` has no effect here.

    Args:
        dataset: Map-style data whose keys are pairs (row, epoch), so that a row may look different in every epoch and
            yet depend on nothing else.
        collate: Makes a batch of a list of rows.
        batch_size: Rows per batch and rank.
        shuffle: Whether every epoch has an order of its own.
        trim: True for training, False for evaluation; see `EpochSampler`.
        seed: Of the order and of the workers.
        num_workers: Processes that load; 0 loads in this one.
        name: What the rows are, for messages.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Any],
        batch_size: int,
        shuffle: bool = False,
        trim: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        name: str = "The data",
    ) -> None:
        self.data = dataset
        self.collate = collate
        self.num_workers = num_workers
        self.sampler = EpochSampler(len(dataset), batch_size, shuffle, trim, seed, name)  # type: ignore[arg-type]
        self.batch_sampler = None  # Lightning reads it of whatever has a sampler
        self._resuming = False

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def batch_size(self) -> int:
        """Rows per batch and rank."""
        return self.sampler.batch_size

    def __iter__(self) -> Iterator[Any]:
        """One pass; nothing is fixed before its first batch, because Lightning sets the epoch after calling `iter`."""
        sampler = self.sampler
        if not self._resuming:
            sampler.position = 0
        elif sampler.position >= len(sampler):
            sampler.set_epoch(sampler.epoch + 1)
        self._resuming, epoch = False, sampler.epoch
        keys = [[(row, epoch) for row in batch] for batch in sampler.batches()[sampler.position :]]
        loader = DataLoader(
            self.data,
            batch_sampler=keys,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            generator=sampler.generator(),
        )
        for batch in loader:
            sampler.position += 1
            yield batch
        sampler.set_epoch(epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batches handed out in it, with what they were cut by."""
        sampler = self.sampler
        return {"epoch": sampler.epoch, "position": sampler.position, "layout": sampler.layout()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last batch handed out."""
        now, then = self.sampler.layout(), state["layout"]
        if state["position"] and now != then:
            changed = ", ".join(f"{key} {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key])
            raise ValueError(
                f"{self.sampler.name}: got a checkpoint with a position in an epoch that was cut otherwise "
                f"({changed}), expected the same cut, or rows would be repeated and left out. Resume with the old "
                "values, or start a new run from the checkpoint's weights."
            )
        self.sampler.epoch, self.sampler.position = state["epoch"], state["position"]
        self._resuming = True

"""What tasks share whose data comes in splits: which of them serves which stage, and in what batches."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from lrl_core.interfaces import Task
from lrl_core.loader import ResumableLoader
from lrl_core.types import Prompts

FILES = "Name a file that has some."
"""The remedy where rows come from files."""


@dataclass(frozen=True)
class Serving:
    """How rows become batches."""

    source: str
    """Where the rows come from, for messages."""
    noun: str
    """What they are, for messages: "images"."""
    remedy: str
    """What to do where a split has none."""
    collate: Callable[[list[Any]], Prompts]
    """Makes a batch of rows."""
    batch_size: int
    """Rows per batch and rank."""
    seed: int
    """Of the order."""
    num_workers: int = 0
    """Processes that load."""


class SplitTask(Task):
    """A task with the splits train, val and perhaps test; validation, test and predict show every prompt once."""

    @abstractmethod
    def splits(self) -> Mapping[str, Dataset[Any]]:
        """The rows of the splits that have some; reads and checks the data at the first call."""

    @abstractmethod
    def serving(self) -> Serving:
        """How rows become batches."""

    def loader(self, split: str, shuffle: bool = False) -> ResumableLoader:
        """Batches of a split; ValueError where it has no rows.

        Args:
            split: train, val or test.
            shuffle: Whether in another order each epoch.
        """
        rows, serving = self.splits(), self.serving()
        if split not in rows:
            raise ValueError(
                f"{serving.source}: got no {serving.noun} in split {split!r}, expected some to {split} on. "
                f"{serving.remedy}"
            )
        return ResumableLoader(
            rows[split],
            serving.collate,
            serving.batch_size,
            shuffle=shuffle,
            trim=split == "train",
            seed=serving.seed,
            num_workers=serving.num_workers,
            name=f"The {split} {serving.noun} of {serving.source}",
        )

    def setup(self, stage: str) -> None:
        """Read and check the data, unless `facts` did."""
        self.splits()

    def train_dataloader(self) -> ResumableLoader:
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return self.loader("train", shuffle=not overfit)

    def val_dataloader(self) -> ResumableLoader:
        return self.loader("val")

    def test_dataloader(self) -> ResumableLoader:
        return self.loader("test")

    def predict_dataloader(self) -> ResumableLoader:
        """The test prompts, or the validation prompts where there are none."""
        return self.loader("test" if "test" in self.splits() else "val")

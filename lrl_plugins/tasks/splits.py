"""What tasks share whose data comes in splits: which of them serves which stage."""

from abc import abstractmethod
from collections.abc import Collection

from lrl_core.interfaces import Task
from lrl_core.loader import ResumableLoader


class SplitTask(Task):
    """A task with the splits train, val and perhaps test; validation, test and predict show every prompt once."""

    @abstractmethod
    def splits(self) -> Collection[str]:
        """The splits that have rows; reads and checks the data at the first call."""

    @abstractmethod
    def loader(self, split: str, shuffle: bool = False) -> ResumableLoader:
        """Batches of a split; ValueError where it has no rows.

        Args:
            split: train, val or test.
            shuffle: Whether in another order each epoch.
        """

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

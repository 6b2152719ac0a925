"""Numbers of a training step on their way to callbacks, progress bar and loggers."""

from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor


class StepLog:
    """What `LightningModule.log` does for numbers of single steps, in one go instead of name by name.

    `log` keeps a metric object per name and makes every dictionary of them anew several times a step: ten numbers take
    milliseconds. Here callbacks find the numbers in `trainer.callback_metrics` and the bar its own in
    `trainer.progress_bar_metrics`, as always; the loggers get all of them every `log_every_n_steps` steps. Given up are
    means over an epoch or over ranks: the numbers are those of the step (of a learner that does not learn in every step
    those of the last one in which it did), and on disk those of the first rank.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Tensor] = {}

    def tell(self, trainer: Trainer, numbers: dict[str, Tensor], bar: dict[str, Tensor]) -> None:
        """Show the step's numbers, scalars that are detached, to callbacks and progress bar.

        Args:
            trainer: Whose.
            numbers: By name; they stay on their device until a logger is due.
            bar: Those that the progress bar shows.
        """
        trainer.callback_metrics.update(numbers | bar)
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_metrics.update({name: float(number) for name, number in bar.items()})
        self._waiting = self._waiting | numbers

    def hand_over(self, trainer: Trainer, step: int) -> None:
        """Give the numbers to the loggers if it is their turn; to be called after the callbacks of the step.

        Args:
            trainer: Whose.
            step: Training steps before this one.
        """
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = every > 0 and ((step + 1) % every == 0 or trainer.should_stop)
        if not due or not trainer.loggers:
            return
        row: dict[str, Any] = {name: float(number) for name, number in self._waiting.items()}
        trainer.logged_metrics.update(self._waiting)
        self._waiting = {}
        for logger in trainer.loggers:
            logger.log_metrics({**row, "epoch": trainer.current_epoch}, step=step)
            logger.save()


def of_learner(learner: object, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """The numbers of a learner's update, told apart from those of the policy's."""
    shared = ("loss", "gradient_norm")
    name = type(learner).__name__
    return {f"{name}/{key}" if key in shared else key: value for key, value in metrics.items()}

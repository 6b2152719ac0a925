"""What ten logged numbers cost a training step: Lightning's `self.log` beside what `PolicyGradient` does, in Markdown.

    python tests/benchmarks/step_overhead.py

A step is one manual update of a small linear layer. Rounds take turns; a round is one `Trainer.fit` with a CSV logger
that is due every --every steps, and its number is the median time from the start of one step to that of the next.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from lrl_core.step_log import StepLog

NAMES = [f"train/number_{i}" for i in range(10)]


class Bare(LightningModule):
    """One manual update a step; logs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(8, 1)
        self.starts: list[float] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        self.starts.append(time.perf_counter())
        optimizer = self.optimizers()
        loss = self.layer(batch).square().mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.tell({name: loss.detach() for name in NAMES})

    def tell(self, numbers: dict[str, Tensor]) -> None:
        """Log them, or not."""


class TenLogs(Bare):
    """Logs name by name."""

    def tell(self, numbers: dict[str, Tensor]) -> None:
        for name, number in numbers.items():
            self.log(name, number)


class OneDict(Bare):
    """Logs as `PolicyGradient` does."""

    def __init__(self) -> None:
        super().__init__()
        self.step_log = StepLog()

    def tell(self, numbers: dict[str, Tensor]) -> None:
        self.step_log.tell(self.trainer, numbers, {})

    def on_train_batch_end(self, outputs: object, batch: Tensor, batch_idx: int) -> None:
        self.step_log.hand_over(self.trainer, batch_idx)


def milliseconds(module: Bare, steps: int, every: int) -> float:
    """Median time of a step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=CSVLogger(folder),
            log_every_n_steps=every,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(torch.randn(steps, 8), batch_size=None))
    gaps = [later - earlier for earlier, later in zip(module.starts, module.starts[1:], strict=False)]
    return 1000 * statistics.median(gaps)


def main() -> None:
    """Time and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=50, help="The trainer's log_every_n_steps.")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    ways = {"nothing": Bare, "ten calls of self.log": TenLogs, "ten numbers by StepLog": OneDict}
    rounds = [
        {name: milliseconds(way(), arguments.steps, arguments.every) for name, way in ways.items()}
        for _ in range(arguments.rounds + 1)
    ][1:]  # the first one warms up
    medians = {name: statistics.median(one[name] for one in rounds) for name in ways}
    print("| logged | ms per step, median | ms over nothing |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median - medians['nothing']:.3f} |")


if __name__ == "__main__":
    main()

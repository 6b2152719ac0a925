"""Where the time of a training step goes: by phase, and by operator."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console as Terminal
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from lrl_core.clock import LABEL
from lrl_core.module import PolicyGradient

PHASES = {
    "rollout": "rollout: drawing episodes",
    "reward": "reward: scoring them",
    "reference": "reference: reading its log-probabilities",
    "baseline": "baseline: comparing",
    "loss": "loss: gradient and optimiser step",
    "step": "rest of the step",
}
"""The phases of a step and how they are called in the table."""


class Profile(Callback):
    """Looks at a few training steps with torch's profiler and shows which phases and operators took their time.

    It prints two tables and writes them to `profile.txt` in the run's folder. The steps that it looks at are slower
    than others, because every operator is written down and a GPU is waited for at the end of each phase; their numbers
    are the same. Only the first rank looks.

    Args:
        first: The first training step that is looked at, counted from 1 in this process; those before it warm up.
        steps: How many steps are looked at.
        rows: How many operators are shown, those that took most of the time.
        trace: Whether the whole trace is written too, as `trace.json` for chrome://tracing or ui.perfetto.dev.
    """

    def __init__(self, first: int = 3, steps: int = 3, rows: int = 12, trace: bool = False) -> None:
        if min(first, steps, rows) < 1:
            raise ValueError(
                f"Profile: got first {first}, steps {steps} and rows {rows}; expected numbers >= 1. Correct the recipe."
            )
        self.first, self.steps, self.rows, self.trace = first, steps, rows, trace
        self.folder = Path()
        self._begun = self._done = 0
        self._seconds: dict[str, float] = {}
        self._profiler: profile | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run's folder on every rank: the ranks agree on it together."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to look."""
        assert isinstance(pl_module, PolicyGradient)
        self._begun += 1
        if self._begun == self.first and trainer.is_global_zero:
            pl_module.clock.exact = True
            gpu = [ProfilerActivity.CUDA] if pl_module.device.type == "cuda" else []
            self._profiler = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profiler.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step, and say what was seen after the last one."""
        assert isinstance(pl_module, PolicyGradient)
        if self._profiler is None:
            return
        self._done += 1
        for phase, seconds in pl_module.clock.own.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
        if self._done == self.steps:
            self._finish(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was seen of a run that ended before."""
        assert isinstance(pl_module, PolicyGradient)
        if self._profiler is not None and self._done:
            self._finish(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Look away."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _finish(self, module: PolicyGradient) -> None:
        assert self._profiler is not None
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        module.clock.exact = False
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = [
            phase_table(self._seconds, self._done, self.first),
            operator_table(profiler, sum(self._seconds.values()), self._done, self.rows, module.device),
        ]
        with (self.folder / "profile.txt").open("w", encoding="utf-8") as file:
            Terminal(file=file, width=100).print(*tables)
        Terminal().print(*tables)
        if self.trace:
            profiler.export_chrome_trace(str(self.folder / "trace.json"))


def phase_table(seconds: dict[str, float], steps: int, first: int) -> Table:
    """Time and share of each phase; the shares add up to the step.

    Args:
        seconds: By phase, without the phases within; over all steps.
        steps: How many there were.
        first: Which was the first.
    """
    whole = sum(seconds.values())
    title = f"training steps {first} to {first + steps - 1}: {1000 * whole / steps:.1f} ms each, under the profiler"
    table = _table(title, "phase", "ms/step", "share")
    for phase, name in PHASES.items():
        if phase in seconds:
            table.add_row(name, f"{1000 * seconds[phase] / steps:.1f}", f"{seconds[phase] / whole:.1%}")
    return table


def operator_table(profiler: profile, whole: float, steps: int, rows: int, device: torch.device) -> Table:
    """The operators with the most time of their own (without operators within), on the GPU if there is one.

    Args:
        profiler: Stopped.
        whole: Seconds of all steps.
        steps: How many there were.
        rows: How many operators.
        device: Of the model.
    """
    gpu = device.type == "cuda"
    found = [
        (event.self_device_time_total if gpu else event.self_cpu_time_total, event.count, event.key)
        for event in profiler.key_averages()
        if not event.key.startswith(LABEL)
    ]
    title = f"operators by their own time{' on the GPU' if gpu else ''}, all threads"
    table = _table(title, "operator", "calls/step", "ms/step", "share")
    for microseconds, count, name in sorted(found, reverse=True)[:rows]:
        own = microseconds / 1e6
        table.add_row(name[:44], f"{count / steps:.0f}", f"{1000 * own / steps:.1f}", f"{own / whole:.1%}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=True)
    return table

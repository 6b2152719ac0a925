"""What a person watching the terminal sees: the sizes of a step, answers before and after, and what was gained."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console as Terminal
from rich.table import Table

from lrl_core.alone import LearnerAlone
from lrl_core.module import PolicyGradient


class Console(Callback):
    """Prints the step's sizes at the start, a table of answers at each validation, and the held-out gain at the end.

    "Before" is the last validation before reinforcement; in a run that begins with reinforcement it is the first one
    seen, the sanity check included when it is whole (`trainer.num_sanity_val_steps: -1`). Of a learner that is trained
    alone it follows the held-out number, from the first validation to the last.

    Args:
        answers: Rows of the table; 0 for none.
        metric: The held-out number to follow, as it is logged.
    """

    def __init__(self, answers: int = 3, metric: str = "val/CIDErD") -> None:
        self.answers, self.metric = answers, metric
        self.before: dict[str, str] = {}
        self.score_before: float | None = None
        self.score_now: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must still know."""
        return {"before": self.before, "score_before": self.score_before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run stopped."""
        self.before, self.score_before = state_dict["before"], state_dict["score_before"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what one step consists of."""
        if trainer.is_global_zero:
            assert isinstance(pl_module, PolicyGradient | LearnerAlone)
            self._print(step_sizes(trainer, pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show a few answers and keep the score."""
        whole = not trainer.sanity_checking or trainer.num_sanity_val_steps == float("inf")
        if not trainer.is_global_zero or not whole:
            return
        score = trainer.callback_metrics.get(self.metric)
        self.score_now = None if score is None else float(score)
        if not isinstance(pl_module, PolicyGradient):
            self.score_before = self.score_now if self.score_before is None else self.score_before
            self._print(f"epoch {trainer.current_epoch + 1}{self._held_out()}")
            return
        if not pl_module.answers:
            return
        if not pl_module.phase.reinforces or self.score_before is None:
            self.score_before = self.score_now
            self.before = {a.id: a.text for a in pl_module.answers[: self.answers]}
        if self.answers and not trainer.sanity_checking:
            self._print(self._table(trainer, pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was gained on held-out prompts."""
        folder = trainer.log_dir  # read on every rank: the ranks agree on it together
        if not trainer.is_global_zero:
            return
        if self.score_before is not None and self.score_now is not None:
            self._print(f"held-out {self.metric.split('/')[-1]}: {self._gain(pl_module)}")
        self._print(f"the run's folder: {folder}")

    def _gain(self, module: LightningModule) -> str:
        before, now = self.score_before, self.score_now
        assert before is not None
        assert now is not None
        if not isinstance(module, PolicyGradient):
            return f"[bold]{before:.3f}[/bold] at first, [bold]{now:.3f}[/bold] at the end ({now - before:+.3f})"
        if not any(replay.samples for replay in module.replays):
            return f"[bold]{now:.3f}[/bold] after {module.phase.name}"
        start = "maximum likelihood" if module.warm_up_epochs else "the start"
        return f"[bold]{before:.3f}[/bold] after {start}, [bold]{now:.3f}[/bold] at the end ({now - before:+.3f})"

    def _held_out(self) -> str:
        return "" if self.score_now is None else f", held-out {self.metric.split('/')[-1]} {self.score_now:.3f}"

    def _table(self, trainer: Trainer, module: PolicyGradient) -> Table:
        title = f"epoch {trainer.current_epoch + 1}, {module.phase.name}{self._held_out()}"
        table = Table(title=title, title_justify="left", expand=True)
        started = module.phase.reinforces  # until then "before" would repeat "now"
        for column in ("prompt", "reference", *(["before"] if started else []), "now"):
            table.add_column(column, ratio=1 if column == "prompt" else 3)
        for answer in module.answers[: self.answers]:
            reference = answer.references[0] if answer.references else ""
            before = [self.before.get(answer.id, "")] if started else []
            table.add_row(answer.id, reference, *before, answer.text)
        return table

    def _print(self, what: str | Table) -> None:
        Terminal().print(what)


def step_sizes(trainer: Trainer, module: PolicyGradient | LearnerAlone) -> str:
    """Prompts per step, samples per prompt and what follows from them, in one line."""
    loader = trainer.train_dataloader
    prompts = getattr(loader, "batch_size", None) or "?"
    ranks = f" on each of {trainer.world_size} ranks" if trainer.world_size > 1 else ""
    tokens = module.updater.token_budget
    budget = f"micro-batches of {tokens} tokens" if tokens else "one micro-batch"
    if isinstance(module, LearnerAlone):
        learner = type(module.learner).__name__
        return f"a step is {prompts} prompts{ranks} for {learner}, read in {budget}; precision {trainer.precision}"
    samples = module.decoder.samples if module.decoder else 0
    episodes = f" x {samples} samples = {prompts * samples} episodes" if samples and prompts != "?" else ""
    warm_up = f"; {module.warm_up_epochs} epochs of maximum likelihood first" if module.warm_up_epochs else ""
    holds = module.first_epoch - module.warm_up_epochs
    first = f"; {holds} epochs in which only learners learn first" if holds else ""
    return (
        f"a step is {prompts} prompts{episodes}{ranks}, read in {budget}{warm_up}{first}; precision {trainer.precision}"
    )

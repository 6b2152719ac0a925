"""LearnerAlone, the LightningModule for what learns without a policy: a preference model, an encoder's warm-up."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from lrl_core.gradients import Updater
from lrl_core.interfaces import Learner, LearnsAlone, TaskFacts, bind_all
from lrl_core.phases import SchedulerFactory, trained
from lrl_core.seeds import Seeded, seed_step
from lrl_core.step_log import StepLog
from lrl_core.types import Experience, Prompts, Rollout


class LearnerAlone(Seeded):
    """Trains one learner by itself on the batches of a task: `lrl fit` with a recipe whose model names a `learner`.

    Held-out lessons are measured as val/<name> and test/<name>. The checkpoint holds the weights under "learner.".

    Args:
        learner: What learns; it brings its optimiser.
        task: What the task knows; the command line links it to the data.
        scheduler: Learning-rate schedule, stepped once per training step; None keeps the rate.
        token_budget: Padded tokens per micro-batch; None reads the whole batch at once. It changes memory and speed,
            never the update.
        gradient_clip: Limit on the gradient; None for no limit.
        gradient_clip_algorithm: `norm` limits the norm of all gradients, `value` each entry.
    """

    steps_done: Tensor

    def __init__(
        self,
        learner: Learner,
        task: TaskFacts,
        scheduler: SchedulerFactory | None = None,
        token_budget: int | None = None,
        gradient_clip: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
    ) -> None:
        super().__init__()
        if not isinstance(learner, LearnsAlone) or not isinstance(learner, nn.Module):
            raise ValueError(
                f"{type(learner).__name__} learns beside a policy only; expected a learner that can be trained alone, "
                "such as Preference or MaskedLM. Name one of them, or a policy and an objective to train with it."
            )
        self.automatic_optimization = False
        self.learner: Any = learner
        self.scheduler = scheduler
        self.updater = Updater(token_budget, gradient_clip, gradient_clip_algorithm)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))
        self.step_log = StepLog()
        self.metric: Metric | None = None
        bind_all(self, task)

    def configure_optimizers(self) -> Any:
        """The learner's own optimiser, and the schedule of its rate."""
        optimizer: Optimizer = self.learner.optimizer(trained(self.learner))
        return ([optimizer], [self.scheduler(optimizer)]) if self.scheduler else optimizer

    def training_step(self, prompts: Prompts, batch_idx: int) -> None:
        """One update per lesson that the learner makes of the batch."""
        assert self.seed is not None
        step = int(self.steps_done)
        seed_step(self.seed, self.global_rank, step)
        optimizer: Any = self.optimizers()
        metrics: dict[str, Tensor] = {}
        self.learner.train()
        for lesson in self.learner.lessons(Experience(expert=Rollout.of_targets(prompts)), None):
            metrics |= self.updater.step(self, self.learner.learn, self.learner.count, lesson, optimizer, step)
        schedule = self.lr_schedulers()
        if isinstance(schedule, LRScheduler):
            schedule.step()
        self.steps_done += 1
        numbers = {f"train/{name}": value for name, value in metrics.items()}
        bar = {"loss": numbers["train/loss"]} if "train/loss" in numbers else {}
        self.step_log.tell(self.trainer, numbers, bar)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the step, after the callbacks."""
        self.step_log.hand_over(self.trainer, int(self.steps_done) - 1)

    def on_validation_epoch_start(self) -> None:
        """Begin with an empty metric."""
        self.metric = self.learner.metric().to(self.device)

    def validation_step(self, prompts: Prompts, batch_idx: int) -> None:
        """Measure the learner on held-out lessons."""
        self._examine(prompts)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics as val/<name>."""
        self._end("val")

    def on_test_epoch_start(self) -> None:
        """Begin with an empty metric."""
        self.metric = self.learner.metric().to(self.device)

    def test_step(self, prompts: Prompts, batch_idx: int) -> None:
        """Measure the learner on the test's lessons."""
        self._examine(prompts)

    def on_test_epoch_end(self) -> None:
        """Log the metrics as test/<name>."""
        self._end("test")

    @torch.no_grad()
    def _examine(self, prompts: Prompts) -> None:
        self.learner.eval()
        for lesson in self.learner.lessons(Experience(expert=Rollout.of_targets(prompts)), None):
            for part in lesson.split(self.updater.token_budget):
                self.learner.examine(part, self.metric)
            break  # more lessons of one batch are more updates from the same rows

    def _end(self, prefix: str) -> None:
        assert self.metric is not None
        self.log_dict({f"{prefix}/{name}": value for name, value in self.metric.compute().items()})

"""What `StepLog` tells is what `LightningModule.log` tells."""

import csv

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lrl_core.gradients import added
from lrl_core.step_log import StepLog, of_learner


class ByLog(LightningModule):
    """Ten numbers by `log`; the definition."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(((self.weight - batch) ** 2).sum())
        optimizer.step()
        numbers = {f"train/{i}": self.weight.detach().sum() * i + self.global_step for i in range(10)}
        self.tell(numbers | {"reward/mean": torch.tensor(float(-self.global_step))}, {"loss": numbers["train/1"]})

    def tell(self, numbers, bar):
        self.log_dict(numbers)
        self.log_dict(bar, prog_bar=True, logger=False)


class ByStepLog(ByLog):
    def __init__(self):
        super().__init__()
        self.step_log = StepLog()
        self.steps = 0

    def tell(self, numbers, bar):
        self.step_log.tell(self.trainer, numbers, bar)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.step_log.hand_over(self.trainer, self.steps)
        self.steps += 1


class Watch(Callback):
    """Writes down what callbacks and the progress bar see, and stops the run after a step."""

    def __init__(self, last):
        self.last, self.seen, self.shown = last, [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append({name: float(number) for name, number in trainer.callback_metrics.items()})
        self.shown.append(dict(trainer.progress_bar_metrics))
        trainer.should_stop = len(self.seen) == self.last


def run(folder, module, callbacks=(), bar=True, every=3):
    torch.manual_seed(3)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=CSVLogger(folder, name="", version=""),
        log_every_n_steps=every,
        enable_progress_bar=bar,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=list(callbacks),
    )
    trainer.fit(module, DataLoader(torch.linspace(0, 1, 8), batch_size=None))
    return trainer


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("last", "every"), [(16, 3), (11, 3), (5, 1), (7, 50)])
def test_callbacks_bar_and_loggers_are_told_the_same(tmp_path, last, every):
    told = {}
    for way in (ByLog, ByStepLog):
        watch = Watch(last)
        trainer = run(tmp_path / way.__name__, way(), [watch], every=every)
        logged = {name: float(number) for name, number in trainer.logged_metrics.items()}
        told[way] = (watch.seen, watch.shown, rows(tmp_path / way.__name__), logged)
    assert len(told[ByStepLog][0]) == last
    assert told[ByStepLog] == told[ByLog]


def test_nothing_is_written_where_nobody_logs(tmp_path):
    trainer = run(tmp_path, ByStepLog(), every=0)
    assert not (tmp_path / "metrics.csv").exists()
    assert trainer.callback_metrics["reward/mean"] == -16


def test_without_a_progress_bar_nothing_is_made_for_it(tmp_path):
    assert run(tmp_path, ByStepLog(), bar=False).progress_bar_metrics == {}


def test_checkpoints_and_early_stopping_can_follow_a_number(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="reward/mean", mode="max", every_n_train_steps=1)
    stop = EarlyStopping("reward/mean", mode="max", patience=1, check_on_train_epoch_end=True)
    trainer = run(tmp_path, ByStepLog(), [best, stop])
    assert best.best_model_score == -1  # after the first step
    assert stop.best_score == -8  # at the end of the first epoch
    assert trainer.current_epoch == 2


def test_numbers_of_learners_and_micro_batches():
    class Critic:
        pass

    assert of_learner(Critic(), {"loss": 1, "gradient_norm": 2, "error": 3}) == {
        "Critic/loss": 1,
        "Critic/gradient_norm": 2,
        "error": 3,
    }
    sums = added(added({}, {"a": 2.0}, 0.5), {"a": 4.0, "b": 6.0}, 0.5)
    assert sums == {"a": 3.0, "b": 3.0}

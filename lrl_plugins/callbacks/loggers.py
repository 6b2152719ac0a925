"""Numbers for the log from hooks in which Lightning's own `log` is closed."""

import torch
from lightning.pytorch import LightningModule, Trainer

from lrl_core.module import PolicyGradient


def log_now(trainer: Trainer, pl_module: LightningModule, numbers: dict[str, float]) -> None:
    """Hand numbers that are the same on every rank to the loggers and to callbacks that look for them."""
    assert isinstance(pl_module, PolicyGradient)
    trainer.callback_metrics.update({name: torch.tensor(number) for name, number in numbers.items()})
    for logger in trainer.loggers:
        logger.log_metrics({**numbers, "epoch": trainer.current_epoch}, step=int(pl_module.steps_done))

"""A limit on what training may cost, in episodes, tokens or seconds."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lrl_core.module import PolicyGradient
from lrl_core.ranks import sum_over_ranks, world_size


class StopAfter(Callback):
    """Stops training after so many episodes, generated tokens or seconds, whichever is reached first.

    The step in which a limit is reached is finished, and a validation follows as at every stop. Numbers are of all
    ranks and of all parts of a resumed run. Optimiser steps are no measure: there are several optimisers.

    Args:
        rollouts: Training episodes; what a replay draws again counts again. None: no limit.
        tokens: Tokens that the policy chose in them. None: no limit.
        seconds: Time spent training, validation included. None: no limit.
    """

    def __init__(self, rollouts: int | None = None, tokens: int | None = None, seconds: float | None = None) -> None:
        limits = {"rollouts": rollouts, "tokens": tokens, "seconds": seconds}
        self.limits = {name: float(limit) for name, limit in limits.items() if limit is not None}
        if not self.limits or min(self.limits.values()) <= 0:
            raise ValueError(f"StopAfter: got {limits}; expected at least one limit, each > 0. Set rollouts, say.")
        self.spent = dict.fromkeys(limits, 0.0)
        self._checked = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has spent."""
        return dict(self.spent)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.spent = dict(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had reached its limit does not go on."""
        self._stop_if_spent(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._checked = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step of all ranks; they decide alike."""
        assert isinstance(pl_module, PolicyGradient)
        now = time.monotonic()
        here = [*pl_module.drawn, (now - self._checked) / world_size()]
        self._checked = now
        step = sum_over_ranks(torch.tensor(here, device=pl_module.device, dtype=torch.float64)).tolist()
        self.spent = {name: self.spent[name] + more for name, more in zip(self.spent, step, strict=True)}
        self._stop_if_spent(trainer)

    def _stop_if_spent(self, trainer: Trainer) -> None:
        reached = [name for name, limit in self.limits.items() if self.spent[name] >= limit]
        if reached and not trainer.should_stop:
            spent = ", ".join(f"{self.spent[name]:.0f} of {self.limits[name]:.0f} {name}" for name in reached)
            rank_zero_info(f"StopAfter: {spent}; training stops.")
            trainer.should_stop = True

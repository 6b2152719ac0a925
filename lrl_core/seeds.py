"""Random draws as a function of seed, rank and step."""

import hashlib
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seed Python, NumPy and torch for one training step: other ranks and other steps get unrelated streams."""
    digest = hashlib.blake2b(f"{seed}:{rank}:{step}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number % 2**63)


class Seeded(LightningModule):
    """A training module whose steps are seeded: a resumed run draws as if it had never stopped."""

    seed: int | None = None
    """The run's seed; None before the first step."""

    def on_fit_start(self) -> None:
        """Remember the run's seed; a resumed run has it from its checkpoint."""
        if self.seed is None:
            self.seed = torch.initial_seed() % 2**32

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the seed down."""
        checkpoint["lrl_seed"] = self.seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the seed of the run."""
        self.seed = checkpoint["lrl_seed"]

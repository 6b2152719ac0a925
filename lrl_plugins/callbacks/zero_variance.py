"""A word of warning where most prompts teach nothing."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn


class ZeroVariance(Callback):
    """Warns when the samples of most prompts earn the same for many steps: there is nothing to compare.

    Args:
        share: Share of such prompts in a step (`groups/zero_variance`) above which a step counts.
        steps: Warn after this many such steps in a row.
    """

    def __init__(self, share: float = 0.5, steps: int = 20) -> None:
        if not 0 <= share < 1 or steps < 1:
            raise ValueError(f"ZeroVariance: got share {share} and steps {steps}; expected 0 <= share < 1, steps >= 1.")
        self.share, self.steps = share, steps
        self.in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must still know."""
        return {"in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run stopped."""
        self.in_a_row = state_dict["in_a_row"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step."""
        equal = float(trainer.callback_metrics.get("groups/zero_variance", math.nan))
        if math.isnan(equal):  # no prompt with several judged samples: nothing is known
            return
        self.in_a_row = self.in_a_row + 1 if equal > self.share else 0
        if self.in_a_row == self.steps:
            rank_zero_warn(
                f"ZeroVariance: for {self.steps} steps all samples of more than {self.share:.0%} of the prompts earned "
                f"the same (now {equal:.0%}); such prompts teach nothing. Use easier or harder prompts, more samples "
                "per prompt, a higher temperature, a finer reward, or the replay Redraw."
            )

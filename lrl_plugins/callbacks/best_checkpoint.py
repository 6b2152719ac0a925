"""The checkpoint to keep: the best by a number that was not trained on."""

from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lrl_core.interfaces import ChecksRecipe, Sampler
from lrl_core.module import PolicyGradient
from lrl_plugins.callbacks.held_out import direction_of, is_reward, reward_names


class BestCheckpoint(ModelCheckpoint, ChecksRecipe):
    """Keeps the checkpoint that is best by a held-out metric which is not the reward.

    A policy that has learnt to exploit its reward scores highest by that reward, on held-out prompts too, while what
    people want may have fallen (Gao et al. 2022, arXiv 2210.10760). A metric that is named like the reward or one of
    its parts is therefore refused.

    Args:
        metric: The number to choose by, as it is logged, such as `val/CIDErD`.
        mode: Whether the largest (`max`) or the smallest (`min`) is best; None: `min` for perplexity, loss and
            errors by name, else `max`.
        filename: Name of the file, without its ending, in the run's checkpoints folder.
        allow_reward: Choose by the reward all the same, as published self-critical captioning does.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["max", "min"] | None = None,
        filename: str = "best",
        allow_reward: bool = False,
    ) -> None:
        super().__init__(
            monitor=metric,
            mode=mode or direction_of(metric),
            filename=filename,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.allow_reward = allow_reward

    def check_recipe(self, sampler: Sampler) -> None:
        """Refuse to choose by the reward."""
        assert self.monitor is not None
        names = reward_names(sampler.reward)
        if not self.allow_reward and is_reward(self.monitor, names):
            raise ValueError(
                f"BestCheckpoint: got metric {self.monitor!r}, and the policy is trained on the reward "
                f"{', '.join(sorted(names))}; expected a held-out metric of another kind, because a policy that "
                "exploits its reward is best by that reward. Name another metric, or set allow_reward: true."
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check once more, for runs that are started without the command line."""
        if stage == "fit" and isinstance(pl_module, PolicyGradient):
            self.check_recipe(pl_module)
        super().setup(trainer, pl_module, stage)

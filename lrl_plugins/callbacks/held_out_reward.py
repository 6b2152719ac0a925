"""The reward of answers to held-out prompts: of the mean answer, and of the best among several."""

import math
from collections import defaultdict
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lrl_core.module import PolicyGradient
from lrl_core.ranks import merged_over_ranks
from lrl_core.reports import prompt_id
from lrl_core.types import RewardSignal, Rollout

Worth = dict[str, tuple[float, float]]
"""Of one prompt: the mean and the best of its answers, of the reward and of each part."""


class HeldOutReward(Callback):
    """Scores answers to the prompts of validation and test by the recipe's reward, and logs the mean and the best.

    Logged as `val/reward/mean` and `val/reward/best`, of the parts of the reward as `val/reward/<part>` and
    `val/reward/<part>/best`, and in a test under `test/`: the mean over prompts of the mean and of the best of the
    answers that evaluation_decoder draws (with `samples: k`). With LMPosterior or LanguageModel as the reward, `best`
    is the largest log-likelihood among k samples (Hu et al. 2024, arXiv 2310.04363, section 4.1). An answer that cannot
    be judged does not count. The answers are those that the task's metrics see. While a warm-up lasts nothing is
    scored.

    Args:
        every: Score at every this many validations; a test is always scored.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"HeldOutReward: every is {every}; expected a number >= 1. Correct it.")
        self.every = every
        self.validations = 0
        self._found: dict[str, Worth] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must still know."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run stopped."""
        self.validations = state_dict["validations"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a recipe without a reward."""
        assert isinstance(pl_module, PolicyGradient)
        if pl_module.reward is None:
            raise ValueError(
                "HeldOutReward: got a recipe without a reward; expected one, to score held-out answers. Name it as "
                "model.reward, or take the callback out."
            )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score answers to the batch."""
        assert isinstance(pl_module, PolicyGradient)
        if self._scores_now(trainer, pl_module):
            self._add(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, and begin anew."""
        assert isinstance(pl_module, PolicyGradient)
        if self._scores_now(trainer, pl_module):
            self._log(pl_module, "val")
        self.validations += trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score answers to the batch."""
        assert isinstance(pl_module, PolicyGradient)
        self._add(pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, and begin anew."""
        assert isinstance(pl_module, PolicyGradient)
        self._log(pl_module, "test")

    def _scores_now(self, trainer: Trainer, module: PolicyGradient) -> bool:
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        # Until the warm-up is over there is no reference policy to judge with.
        return not trainer.sanity_checking and module.phase.reinforces and self.validations % self.every == 0

    @torch.no_grad()
    def _add(self, module: PolicyGradient) -> None:
        assert module.answered is not None
        devices = [module.device] if module.device.type == "cuda" else []
        # A reward may draw: the next answers are those of a run without this callback.
        with torch.random.fork_rng(devices=devices):
            self._found = worth_by_prompt(*module.scored(module.answered)) | self._found

    def _log(self, module: PolicyGradient, stage: str) -> None:
        module.log_dict({f"{stage}/{name}": value for name, value in averaged(merged_over_ranks(self._found)).items()})
        self._found = {}


def worth_by_prompt(rollout: Rollout, reward: RewardSignal) -> dict[str, Worth]:
    """Mean and best reward of each prompt's judged answers, and of each part; a prompt without any has no entry.

    Args:
        rollout: Answers, several to a prompt or one.
        reward: Their scores.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row in range(len(rollout)):
        rows[prompt_id(rollout, row)].append(row)
    named = {"": reward.total, **reward.parts}
    every = {name: _worth(named, own) for name, own in rows.items()}
    return {name: worth for name, worth in every.items() if worth}


def averaged(found: dict[str, Worth]) -> dict[str, float]:
    """Means over prompts under the names of the log: reward/mean, reward/best, reward/<part>, reward/<part>/best.

    Args:
        found: What `worth_by_prompt` says of all prompts.
    """
    every: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for worth in found.values():
        for name, pair in worth.items():
            every[name].append(pair)
    numbers: dict[str, float] = {}
    for name, pairs in every.items():
        mean, best = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
        numbers |= {f"reward/{name or 'mean'}": mean, "/".join(filter(None, ("reward", name, "best"))): best}
    return numbers


def _worth(named: dict[str, Tensor], rows: list[int]) -> Worth:
    judged = {name: [x for x in values[rows].tolist() if not math.isnan(x)] for name, values in named.items()}
    return {name: (sum(own) / len(own), max(own)) for name, own in judged.items() if own}

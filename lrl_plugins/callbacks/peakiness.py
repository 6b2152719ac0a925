"""How peaked the policy is on what people said, before reinforcement learning and after."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console as Terminal
from torch import Tensor

from lrl_core.interfaces import Policy
from lrl_core.module import PolicyGradient
from lrl_core.ranks import sum_over_ranks, world_size
from lrl_core.types import Prompts, Rollout
from lrl_plugins.callbacks.loggers import log_now

TOP = 10


class Peakiness(Callback):
    """Follows how peaked the policy becomes on held-out human answers, and where the human words rank.

    Reinforcement moves mass to what is probable already, even if every reward is equal; words that people use beyond
    the first ten ranks are hardly ever reached (Choshen et al. 2020, arXiv 1907.01752). Logged as `peakiness/<name>` at
    every validation, means over the tokens of the human answers:
    `mode_probability`, `top10_mass`, `entropy` (nats), `human_rank` (1 = the mode), `human_is_mode`, `human_in_top10`
    (shares) and `human_probability`. A line at the end compares with the policy before reinforcement learning.

    Args:
        prompts: How many validation prompts are read, the first ones, over all ranks.
    """

    def __init__(self, prompts: int = 64) -> None:
        if prompts < 1:
            raise ValueError(f"Peakiness: prompts is {prompts}; expected a number >= 1.")
        self.prompts = prompts
        self.before: dict[str, float] | None = None
        self.now: dict[str, float] | None = None
        self.measured_at: int | None = None
        self._answers: list[Rollout] = []

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must still know."""
        return {"before": self.before, "now": self.now, "measured_at": self.measured_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run stopped."""
        self.before, self.now = state_dict["before"], state_dict["now"]
        self.measured_at = state_dict["measured_at"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the prompts once."""
        self._answers = self._human_answers(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure before the first epoch of reinforcement learning."""
        assert isinstance(pl_module, PolicyGradient)
        if self.before is None and pl_module.phase.reinforces:
            self.before = self._measure(pl_module)
            log_now(trainer, pl_module, self.before)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        assert isinstance(pl_module, PolicyGradient)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            pl_module.log_dict(self._measure(pl_module), sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the end with the beginning."""
        assert isinstance(pl_module, PolicyGradient)
        if self.before is None:
            return
        if self.measured_at != int(pl_module.steps_done):
            log_now(trainer, pl_module, self._measure(pl_module))
        if trainer.is_global_zero and self.now is not None:
            Terminal().print(f"peakiness on held-out human answers: {comparison(self.before, self.now)}")

    def _human_answers(self, trainer: Trainer) -> list[Rollout]:
        """This rank's share of the prompts."""
        wanted, answers = -(-self.prompts // world_size()), []
        task = trainer.datamodule  # type: ignore[attr-defined]
        for prompts in task.val_dataloader():
            assert isinstance(prompts, Prompts)
            human = Rollout.of_targets(prompts.select(torch.arange(min(wanted, len(prompts)))))
            if human is None:
                raise ValueError(
                    f"Peakiness: the validation prompts of {type(task).__name__} carry no human answers; "
                    "expected some, to see where their words rank. Remove the callback, or give the task answers."
                )
            answers.append(human)
            wanted -= len(human)
            if not wanted:
                break
        return answers

    def _measure(self, module: PolicyGradient) -> dict[str, float]:
        was_training = module.policy.training
        module.policy.eval()
        sums = sum((token_sums(module.policy, human.to(module.device)) for human in self._answers), torch.zeros(()))
        module.policy.train(was_training)
        *totals, count = sum_over_ranks(sums).tolist()
        self.now = {f"peakiness/{name}": total / max(count, 1) for name, total in zip(STATISTICS, totals, strict=True)}
        self.measured_at = int(module.steps_done)
        return self.now


def comparison(before: dict[str, float], now: dict[str, float]) -> str:
    """Each number before and after reinforcement learning."""
    return ", ".join(f"{name.rpartition('/')[2]} {before[name]:.3g} -> {now[name]:.3g}" for name in now)


Statistic = Callable[[Float[Tensor, "n V"], Float[Tensor, " n"]], Tensor]
"""From log-probabilities of all tokens and of the human's own token to one number per token."""

STATISTICS: dict[str, Statistic] = {
    "mode_probability": lambda every, own: every.amax(1).exp(),
    "top10_mass": lambda every, own: every.topk(min(TOP, every.shape[1]), dim=1).values.exp().sum(1),
    "entropy": lambda every, own: torch.special.entr(every.exp()).sum(1),
    "human_rank": lambda every, own: _rank(every, own),
    "human_is_mode": lambda every, own: _rank(every, own) == 1,
    "human_in_top10": lambda every, own: _rank(every, own) <= TOP,
    "human_probability": lambda every, own: own.exp(),
}


def _rank(every: Float[Tensor, "n V"], own: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """1 for the most probable token; equally probable ones share the better rank."""
    return (every > own[:, None]).sum(1) + 1


@torch.no_grad()
def token_sums(policy: Policy, human: Rollout) -> Float[Tensor, " K"]:
    """Sums of every statistic over the tokens of human answers, and last the number of those tokens.

    Args:
        policy: Who is measured, in evaluation mode.
        human: Human answers as if rolled out.
    """
    tokens = human.tokens[human.action_mask]
    sums = torch.zeros(len(STATISTICS) + 1, dtype=torch.float64, device=tokens.device)
    read = 0

    def add(every: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
        """Chunks come in the order of the chosen tokens, so the next own tokens are the next ones of the list."""
        nonlocal read
        own = every.gather(1, tokens[read : read + len(every), None]).squeeze(1)
        read += len(every)
        sums[:-1] += torch.stack([statistic(every, own).double().sum() for statistic in STATISTICS.values()])
        sums[-1] += len(every)
        return own

    policy(human).over_vocabulary(add)
    return sums

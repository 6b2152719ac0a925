"""A warning when the reward rises and quality falls."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lrl_core.module import PolicyGradient
from lrl_core.ranks import sum_over_ranks
from lrl_plugins.callbacks.held_out import Direction, direction_of, is_reward, reward_names
from lrl_plugins.callbacks.loggers import log_now


@dataclass
class Trend:
    """One held-out metric beside the training reward, validation by validation."""

    direction: Direction
    """Whether more or less of the metric is better."""
    best: float | None = None
    """The best value of the metric so far."""
    reward_then: float | None = None
    """The mean training reward when the metric was best; None until a reward is known."""
    validations: int = 0
    """For how many validations the metric has been worse while the reward has been higher."""

    def see(self, metric: float, reward: float | None, change: float) -> None:
        """Compare with the best so far.

        Args:
            metric: Its value now.
            reward: Mean training reward since the last validation; None where nothing was sampled or judged.
            change: Smallest relative change that counts.
        """
        sign = 1 if self.direction == "max" else -1
        if self.best is None or sign * (metric - self.best) > 0:
            self.best, self.reward_then, self.validations = metric, reward, 0
            return
        if self.reward_then is None:  # the best was before reinforcement: the first reward stands for that time
            self.reward_then = reward
        worse = _change(self.best, metric) > change
        risen = reward is not None and self.reward_then is not None and reward > self.reward_then
        much = risen and _change(self.reward_then, reward) > change
        self.validations = self.validations + 1 if worse and much else 0


def _change(before: float | None, after: float | None) -> float:
    assert before is not None
    assert after is not None
    return abs(after - before) / max(abs(before), abs(after), 1e-12)


class RewardHackingAlarm(Callback):
    """Warns when the training reward rises while a held-out metric of another kind falls (Gao et al. 2022).

    Each metric is compared with its best value so far, the reward with its mean at that time. One warning per onset;
    `alarm/reward_hacking` is 1 while any metric is in that state, else 0.

    Args:
        metrics: The held-out metrics to watch, as they are logged; None: every `val/...` that is not named like the
            reward or one of its parts, and not perplexity, which rises with every gain in reward.
        directions: Whether more (`max`) or less (`min`) of a metric is better, by its name; where not given, `min` for
            perplexity, loss and errors by name, else `max`. A metric named here is watched too.
        patience: For how many validations in a row both must hold.
        change: Smallest relative change that counts, of the metric and of the reward.
    """

    def __init__(
        self,
        metrics: list[str] | None = None,
        directions: dict[str, Direction] | None = None,
        patience: int = 2,
        change: float = 0.02,
    ) -> None:
        if patience < 1 or change < 0:
            raise ValueError(
                f"RewardHackingAlarm: got patience {patience} and change {change}; expected patience >= 1, change >= 0."
            )
        self.metrics, self.directions = metrics, directions or {}
        self.patience, self.change = patience, change
        self.trends: dict[str, Trend] = {}
        self.earned = [0.0, 0.0]
        """Sum and number of the rewards of this rank since the last validation."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must still know; the sums of the first rank stand for all."""
        return {"trends": {name: asdict(trend) for name, trend in self.trends.items()}, "earned": self.earned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run stopped."""
        self.trends = {name: Trend(**trend) for name, trend in state_dict["trends"].items()}
        self.earned = list(state_dict["earned"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's rewards."""
        assert isinstance(pl_module, PolicyGradient)
        experience = pl_module.last_experience
        if experience is not None and experience.reward is not None:
            known = experience.reward.total[experience.reward.judged]
            self.earned = [self.earned[0] + float(known.sum()), self.earned[1] + len(known)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare; the metrics are known from here on."""
        assert isinstance(pl_module, PolicyGradient)
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        total, count = sum_over_ranks(torch.tensor(self.earned, device=pl_module.device, dtype=torch.float64)).tolist()
        self.earned = [0.0, 0.0]
        reward = total / count if count else None
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for name in self._watched(numbers, pl_module):
            if math.isfinite(numbers[name]):
                self._see(name, numbers[name], reward)
        alarming = any(trend.validations >= self.patience for trend in self.trends.values())
        log_now(trainer, pl_module, {"alarm/reward_hacking": float(alarming)})

    def _see(self, name: str, metric: float, reward: float | None) -> None:
        trend = self.trends.setdefault(name, Trend(self.directions.get(name, direction_of(name))))
        trend.see(metric, reward, self.change)
        if trend.validations == self.patience:
            rank_zero_warn(
                f"RewardHackingAlarm: the training reward rose from {trend.reward_then:.4g} to {reward:.4g} while "
                f"{name} went from {trend.best:.4g} to {metric:.4g} ({trend.direction} is better). The policy may be "
                "exploiting the reward: read some episodes, keep the checkpoint that is best by the metric "
                "(BestCheckpoint), and hold the policy nearer to its start (KL, learning rate)."
            )

    def _watched(self, numbers: Iterable[str], module: PolicyGradient) -> list[str]:
        logged = [name for name in numbers if name.startswith("val/")]
        if self.metrics is None:
            names = reward_names(module.reward)
            chosen = [name for name in logged if not is_reward(name, names) and name != "val/perplexity"]
        else:
            chosen = list(self.metrics)
        chosen = list(dict.fromkeys([*chosen, *self.directions]))
        if missing := [name for name in chosen if name not in numbers]:
            raise ValueError(
                f"RewardHackingAlarm: nothing is logged as {', '.join(missing)}; expected some of {', '.join(logged)}. "
                "Correct metrics or directions."
            )
        return chosen

"""Episodes written down, without any logging service: prompt, text, tokens, reward by component, advantage, mask."""

import json
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lrl_core.module import PolicyGradient
from lrl_core.reports import prompt_id, turns_of
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Experience, RewardSignal, Rollout


class RolloutLog(Callback):
    """Writes `rollouts.jsonl` (training episodes) and `predictions.jsonl` (of `lrl predict`) to the run's folder.

    Args:
        episodes: How many episodes of a step are written; they are the first of the batch.
        every: Write every this many training steps.
    """

    def __init__(self, episodes: int = 4, every: int = 1) -> None:
        if episodes < 1 or every < 1:
            raise ValueError(f"RolloutLog: got episodes {episodes} and every {every}; expected both >= 1.")
        self.episodes, self.every = episodes, every
        self.folder = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run's folder on every rank: the ranks agree on it together."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Append the step's first episodes."""
        assert isinstance(pl_module, PolicyGradient)
        experience, step = pl_module.last_experience, int(pl_module.steps_done)
        if experience is None or experience.rollout is None or (step - 1) % self.every or not trainer.is_global_zero:
            return
        self._append("rollouts.jsonl", episode_rows(experience, step, self.episodes, pl_module.tokenizer))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[dict[str, Any]],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append the batch's answers."""
        name = "predictions.jsonl" if trainer.world_size == 1 else f"predictions.rank{trainer.global_rank}.jsonl"
        self._append(name, outputs)

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def episode_rows(
    experience: Experience, step: int, count: int, tokenizer: Tokenizer | None = None
) -> list[dict[str, Any]]:
    """The first episodes as JSON objects; NaN rewards become null, as what the recipe does not measure.

    Args:
        experience: What a step drew.
        step: Number of the training step.
        count: How many episodes, at most.
        tokenizer: Tells the turns of conversations; None leaves them out.
    """
    rollout, reward, advantage = experience.rollout, experience.reward, experience.advantage
    assert rollout is not None
    rows = []
    for row in range(min(count, len(rollout))):
        length = int(rollout.lengths[row])
        rows.append(
            {
                "step": step,
                "prompt": prompt_id(rollout, row),
                "text": rollout.texts[row] if rollout.texts else None,
                "tokens": rollout.tokens[row, :length].tolist(),
                "action_mask": rollout.action_mask[row, :length].int().tolist(),
                "terminated": bool(rollout.terminated[row]),
                "reward": None if reward is None else _earned(reward, row),
                "advantage": None if advantage is None else _numbers(advantage.value[row, :length]),
                "logprobs": _numbers(rollout.logprobs[row, :length]),
            }
            | _conversation(rollout, row, tokenizer)
        )
    return rows


def _conversation(rollout: Rollout, row: int, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Who said what, and what was paid for it in all; nothing of a monologue."""
    if rollout.environment_reward is None or tokenizer is None:
        return {}
    length = int(rollout.lengths[row])
    spoken = turns_of(rollout.tokens[row, :length].tolist(), rollout.action_mask[row, :length].tolist(), tokenizer)
    turns = [{"who": who, "text": text} for who, text in spoken]
    return {"turns": turns, "paid": _number(float(rollout.environment_reward[row].sum()))}


def _earned(reward: RewardSignal, row: int) -> dict[str, float | None]:
    return {name: _number(part[row].item()) for name, part in {"total": reward.total, **reward.parts}.items()}


def _numbers(values: Tensor) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None

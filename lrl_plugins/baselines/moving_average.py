"""A memory of what every prompt earned."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from lrl_core.functional import compared_with
from lrl_core.interfaces import Baseline, Sampler
from lrl_core.masks import length_mask
from lrl_core.ranks import rank, sum_over_ranks, world_size
from lrl_core.types import Advantage, Experience, RewardSignal, Rollout

Mean = tuple[float, float]
"""A mean and how many rewards are in it."""


class MovingAverage(Baseline):
    """Compares with the mean of what the same prompt earned in earlier steps.

    Updated once after each training step, from everything that the step drew, so a sample is never compared with itself
    and the gradient stays unbiased. Every rank hears of the rewards of all ranks: a prompt may be read by another rank
    in the next epoch. The memory goes into the checkpoint.

    Args:
        decay: Weight of the past at each update, in (0, 1), for a mean that forgets; None weighs all rewards alike.
        initial: What a prompt that was never seen is compared with; None: the mean of all rewards of earlier steps.
        capacity: How many prompts are remembered; the one seen longest ago is forgotten first. None: all of them.
    """

    def __init__(self, decay: float | None = None, initial: float | None = None, capacity: int | None = None) -> None:
        super().__init__()
        if decay is not None and not 0 < decay < 1:
            raise ValueError(f"MovingAverage: decay is {decay}; expected a number in (0, 1), or null for a plain mean.")
        if capacity is not None and capacity < 1:
            raise ValueError(f"MovingAverage: capacity is {capacity}; expected at least 1, or null for no limit.")
        self.decay, self.initial, self.capacity = decay, initial, capacity
        self.overall: Mean = (0.0, 0.0)
        self.by_prompt: OrderedDict[int, Mean] = OrderedDict()

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        unseen = (self.overall[0] if self.initial is None else self.initial, 0.0)
        expected = [self.by_prompt.get(group, unseen)[0] for group in rollout.prompts.group.tolist()]
        return compared_with(reward.total.new_tensor(expected), rollout, reward)

    def learned(self, experience: Experience) -> None:
        if experience.rollout is None or experience.reward is None:
            return
        judged = experience.reward.judged
        groups = from_every_rank(experience.rollout.prompts.group[judged]).tolist()
        earned = from_every_rank(experience.reward.total[judged].double()).tolist()
        fresh: dict[int, list[float]] = {}
        for group, reward in zip(groups, earned, strict=True):
            fresh.setdefault(group, []).append(reward)
        for group, rewards in fresh.items():
            self.by_prompt[group] = self._updated(self.by_prompt.pop(group, (0.0, 0.0)), rewards)
        if earned:
            self.overall = self._updated(self.overall, earned)
        while self.capacity is not None and len(self.by_prompt) > self.capacity:
            self.by_prompt.popitem(last=False)

    def _updated(self, old: Mean, rewards: list[float]) -> Mean:
        mean, count = old[0], old[1] + len(rewards)
        share = len(rewards) / count if self.decay is None or old[1] == 0 else 1 - self.decay
        return mean + share * (sum(rewards) / len(rewards) - mean), count

    def get_extra_state(self) -> dict[str, Tensor]:
        """The memory as tensors, the prompt seen longest ago first."""
        means = torch.tensor([*self.by_prompt.values()], dtype=torch.float64).view(-1, 2)
        return {
            "prompts": torch.tensor([*self.by_prompt], dtype=torch.long),
            "means": means,
            "overall": torch.tensor(self.overall, dtype=torch.float64),
        }

    def set_extra_state(self, state: Any) -> None:
        """Take a memory over, whatever its size."""
        pairs = zip(state["prompts"].tolist(), state["means"].tolist(), strict=True)
        self.by_prompt = OrderedDict((prompt, (mean, count)) for prompt, (mean, count) in pairs)
        mean, count = state["overall"].tolist()
        self.overall = (mean, count)


def from_every_rank(rows: Tensor) -> Tensor:
    """The rows of all ranks one after the other, the same on each; ranks may have different numbers of them."""
    sizes = torch.zeros(world_size(), dtype=torch.long, device=rows.device)
    sizes[rank()] = len(rows)
    sizes = sum_over_ranks(sizes)
    room = rows.new_zeros(world_size(), int(sizes.max()), *rows.shape[1:])
    room[rank(), : len(rows)] = rows
    return sum_over_ranks(room)[length_mask(sizes, room.shape[1])]

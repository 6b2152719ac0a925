"""Expectations over every episode of a small world: the bias and the variance of an estimator, without noise."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from lrl_core.interfaces import Baseline, Objective, Reward, Sampler
from lrl_core.testing.toy import TablePolicy, every_episode
from lrl_core.types import Experience


def gradient_moments(
    policy: TablePolicy,
    reward: Reward,
    baseline: Baseline,
    objective: Objective,
    sampler: Sampler,
    samples: int,
    length: int = 2,
) -> tuple[Float[Tensor, "lines V"], float]:
    """Exact mean of the loss gradient over all batches of `samples` episodes of one prompt, and its total variance.

    Args:
        policy: A small world's policy.
        reward: Its reward.
        baseline: The comparison; a copy of it serves each batch, so that no batch sees another's.
        objective: The loss.
        sampler: What the baseline may ask for.
        samples: Episodes per batch.
        length: The longest episode.
    """
    mean = torch.zeros_like(policy.table)
    square = 0.0
    for experience, probability in _batches(policy, reward, baseline, sampler, samples, length):
        policy.zero_grad()
        (objective.loss(policy, experience).total / objective.count(experience)).sum().backward()
        assert policy.table.grad is not None
        mean += probability * policy.table.grad
        square += probability * float(policy.table.grad.pow(2).sum())
    return mean, square - float(mean.pow(2).sum())


def _batches(
    policy: TablePolicy, reward: Reward, baseline: Baseline, sampler: Sampler, samples: int, length: int
) -> Iterator[tuple[Experience, float]]:
    everything, probability = every_episode(policy, length)
    for chosen in product(range(len(everything)), repeat=samples):
        rows = torch.tensor(chosen)
        rollout = everything.select(rows)
        rollout = replace(rollout, prompts=replace(rollout.prompts, group=torch.zeros(samples, dtype=torch.long)))
        signal = reward.score(rollout)
        with torch.no_grad():
            advantage = copy.deepcopy(baseline).advantage(rollout, signal, sampler)
        yield Experience(rollout, signal, advantage), float(probability[rows].prod())

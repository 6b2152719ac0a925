"""Several comparisons at once."""

import torch
from torch import nn

from lrl_core.interfaces import Baseline, Sampler
from lrl_core.types import Advantage, RewardSignal, Rollout
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.baselines.value import Value


class MeanOf(Baseline):
    """The weighted mean of the advantages of other baselines; at most one of them may have a critic.

    A mean of unbiased baselines is unbiased. What the critic should learn is taken over from the one that has it.

    Args:
        baselines: Whose advantages; None: LeaveOneOut alone.
        weights: How much each counts, >= 0; they are divided by their sum. None: all alike.
    """

    def __init__(self, baselines: list[Baseline] | None = None, weights: list[float] | None = None) -> None:
        super().__init__()
        baselines = baselines or [LeaveOneOut()]
        weights = weights or [1.0] * len(baselines)
        if len(weights) != len(baselines) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"MeanOf: got weights {weights} for {len(baselines)} baselines; expected one number >= 0 for each, not "
                "all 0. Give as many weights as baselines, or none."
            )
        _refuse_two([type(b).__name__ for b in baselines if any(isinstance(part, Value) for part in b.modules())])
        self.baselines = nn.ModuleList(baselines)
        self.weights = [weight / sum(weights) for weight in weights]

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        parts, critics = [], {}
        for baseline in self.baselines:
            assert isinstance(baseline, Baseline)
            parts.append(baseline.advantage(rollout, reward, sampler))
            if parts[-1].target is not None or parts[-1].values is not None:
                critics[type(baseline).__name__ + "#" + str(len(parts))] = parts[-1]
        _refuse_two(list(critics))
        weighted = [weight * part.value for weight, part in zip(self.weights, parts, strict=True)]
        critic = next(iter(critics.values()), parts[0])
        return Advantage(torch.stack(weighted).sum(0), critic.target, critic.values, critic.actions)


def _refuse_two(critics: list[str]) -> None:
    if len(critics) > 1:
        raise ValueError(
            f"MeanOf: got {len(critics)} baselines with a critic ({', '.join(critics)}); expected at most one, because "
            "an experience has one target for each token. Take out all but one."
        )

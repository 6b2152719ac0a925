"""The plainest comparison: a number."""

from lrl_core.functional import compared_with
from lrl_core.interfaces import Baseline, Sampler
from lrl_core.types import Advantage, RewardSignal, Rollout


class Constant(Baseline):
    """Compares every reward with the same number; 0 is plain REINFORCE (Williams 1992).

    Args:
        value: The number, in units of the reward.
    """

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        return compared_with(reward.total.new_full((len(rollout),), self.value), rollout, reward)

"""The reward that the environment pays."""

import torch

from lrl_core.interfaces import Reward, Sampler, TaskFacts
from lrl_core.types import RewardSignal, Rollout


class EnvironmentReward(Reward):
    """What the task's environment paid: success at the end of a game, say, each amount on the token that earned it.

    In a task where nobody answers it is refused when the recipe is read.
    """

    concurrent = True

    answered = False
    """Whether this task has an environment."""

    def bind(self, facts: TaskFacts) -> None:
        self.answered = facts.environment is not None

    def check(self, sampler: Sampler) -> None:
        if not self.answered:
            raise ValueError(
                "EnvironmentReward: nobody answers in this task, so nobody pays; expected a task with an environment. "
                "Use another reward, or a task such as GoalOrientedQuestions."
            )

    def score(self, rollout: Rollout) -> RewardSignal:
        paid = rollout.environment_reward
        if paid is None:  # human answers, which no environment has heard
            return RewardSignal(torch.full((len(rollout),), torch.nan, device=rollout.tokens.device))
        return RewardSignal(paid.sum(1), by_token=paid)

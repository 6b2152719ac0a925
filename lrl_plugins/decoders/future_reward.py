"""Decoding by what an episode will be worth, by a learned estimate of its reward."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim import Adam

from lrl_core.interfaces import OptimizerFactory
from lrl_core.masks import length_mask
from lrl_core.types import Experience, Prompts
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.steering import SteeredDecoder


class FutureReward(SteeredDecoder):
    """Takes the token with the largest log pi + strength x expected reward of the episode once it is said.

    Li 2017, "Learning to Decode for Future Success", quality prediction. An estimator, trained beside the policy on the
    run's own episodes and rewards, says what an episode that goes on with a candidate will earn. The bonus is not
    added up along an episode.

    Args:
        strength: Nats per unit of reward; 0 is greedy decoding.
        candidates: How many tokens are weighed each time, the most probable ones; the end token always is.
        embedding: Width of the estimator's word vectors.
        hidden: Width of the estimator's state.
        read_prompt: Whether the estimator reads the prompt's tokens too.
        optimizer: Optimiser of the estimator.
        updates: Updates of the estimator per experience.
        max_length: An episode is cut after this many tokens, EOS counted.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never taken, besides those the tokenizer names (padding, begin, unknown).
        constraints: What every episode must keep: no repeated n-gram, an opening, an end; None for nothing.
    """

    def __init__(
        self,
        strength: float = 1.0,
        candidates: int = 10,
        embedding: int = 32,
        hidden: int = 64,
        read_prompt: bool = True,
        optimizer: OptimizerFactory = Adam,
        updates: int = 1,
        max_length: int = 20,
        min_length: int = 0,
        banned: tuple[int, ...] = (),
        constraints: Constraints | None = None,
    ) -> None:
        super().__init__(
            candidates, embedding, hidden, read_prompt, optimizer, updates, max_length, min_length, banned, constraints
        )
        if strength < 0:
            raise ValueError(f"FutureReward: strength is {strength}; expected >= 0 (0: greedy decoding).")
        self.strength = strength

    def bonus(
        self, estimates: Float[Tensor, "B C"], ends: Bool[Tensor, "B C"], spoken: int, goal: Float[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        return self.strength * estimates

    def goal(self, prompts: Prompts) -> Float[Tensor, " B"]:
        return torch.zeros(len(prompts), device=prompts.lengths.device)

    def wanted(self, experience: Experience) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """The episode's reward after each of its tokens; unknown where the reward could not judge."""
        rollout, reward = experience.rollout, experience.reward
        assert rollout is not None and reward is not None
        real = length_mask(rollout.lengths, rollout.tokens.shape[1])
        wanted = reward.total.nan_to_num()[:, None].expand(real.shape)
        return wanted, real & reward.judged[:, None]

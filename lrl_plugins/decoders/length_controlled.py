"""Decoding towards a given length, by a learned estimate of how many tokens are still to come."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim import Adam

from lrl_core.interfaces import OptimizerFactory
from lrl_core.masks import length_mask
from lrl_core.types import Experience, Prompts
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.steering import SteeredDecoder


class LengthControlled(SteeredDecoder):
    """Takes the token with the largest log pi - strength x (tokens wanted after it - tokens expected after it)^2.

    Li 2017, "Learning to Decode for Future Success", length prediction. An estimator, trained beside the policy on the
    episodes that ended by themselves, says how many tokens follow a candidate; after the end token that is 0. The
    penalty is not added up along an episode. Lengths count every token, EOS included.

    Args:
        target: The wanted length, in tokens; between 1 and max_length.
        column: Column of the examples with each prompt's own wanted length; None: `target` for all.
        strength: Nats per squared token; 0 is greedy decoding.
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
        target: int = 10,
        column: str | None = None,
        strength: float = 1.0,
        candidates: int = 10,
        embedding: int = 32,
        hidden: int = 64,
        read_prompt: bool = False,
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
        if strength < 0 or (column is None and not 1 <= target <= max_length):
            raise ValueError(
                f"LengthControlled: got strength {strength} and target {target}; expected strength >= 0 and a target "
                f"from 1 to max_length = {max_length}."
            )
        self.target, self.column, self.strength = target, column, strength

    def bonus(
        self, estimates: Float[Tensor, "B C"], ends: Bool[Tensor, "B C"], spoken: int, goal: Float[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        following = (estimates * self.max_length).masked_fill(ends, 0)
        return -self.strength * (goal[:, None] - spoken - following) ** 2

    def goal(self, prompts: Prompts) -> Float[Tensor, " B"]:
        if self.column is None:
            return torch.full((len(prompts),), float(self.target), device=prompts.lengths.device)
        wanted = [example.get(self.column) for example in prompts.examples] or [None]
        if not all(isinstance(length, int | float) for length in wanted):
            known = sorted(prompts.examples[0]) if prompts.examples else []
            raise ValueError(
                f"LengthControlled: got {wanted[:5]} as wanted lengths from column {self.column!r}; expected a number "
                f"in every row. The examples have the columns {known}; name one of them, or set column to null."
            )
        return torch.tensor(wanted, device=prompts.lengths.device, dtype=torch.float)

    def wanted(self, experience: Experience) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Tokens that follow, as a share of max_length; unknown where the limit cut the episode."""
        rollout = experience.rollout
        assert rollout is not None
        steps = rollout.tokens.shape[1]
        spoken = torch.arange(1, steps + 1, device=rollout.tokens.device)
        before_the_last = length_mask(rollout.lengths - 1, steps)
        return (rollout.lengths[:, None] - spoken) / self.max_length, before_the_last & rollout.terminated[:, None]

"""The value head of a policy: what it expects an episode to earn, read from the states it speaks from."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrl_core.types import PolicyOutput, Rollout
from lrl_core.vocab import Head

ValueHead = Literal["none", "detached", "shared"]
"""`none`: no value head. `detached`: its gradient stops before the policy's other weights. `shared`: it does not."""


class Values(nn.Module):
    """A linear estimate of the return from the state before each token; 0 at first (Ziegler 2019).

    Args:
        width: Width of the states.
        detached: Whether its gradient stops before the states.
    """

    def __init__(self, width: int, detached: bool) -> None:
        super().__init__()
        self.detached = detached
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, rollout: Rollout, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
        """The estimate before each chosen token, in the head's own precision; 0 off the action mask."""
        at = rollout.action_mask.nonzero(as_tuple=True)
        states = hidden[at].detach() if self.detached else hidden[at]
        with torch.autocast(hidden.device.type, enabled=False):
            values = self.linear(states.to(self.linear.weight.dtype)).squeeze(1)
        return values.new_zeros(rollout.tokens.shape).index_put(at, values)


def make_values(kind: ValueHead, width: int, who: str) -> Values | None:
    """The value head that an argument names; None for `none`."""
    if kind not in ("none", "detached", "shared"):
        raise ValueError(
            f"{who}: got value_head={kind!r}; expected 'none', 'detached' or 'shared'. Choose one of them."
        )
    return None if kind == "none" else Values(width, kind == "detached")


def spoken(
    rollout: Rollout, hidden: Float[Tensor, "B T D"], head: Head, eos: int | None, values: Values | None
) -> PolicyOutput:
    """What a policy says of a rollout, its value head's estimates included.

    Args:
        rollout: The episodes that were read.
        hidden: The state before each token.
        head: The policy's output matrix.
        eos: End token; None where the policy has none.
        values: The policy's value head, if any.
    """
    return PolicyOutput(rollout, hidden, head, eos, None if values is None else values(rollout, hidden))

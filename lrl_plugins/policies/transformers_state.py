"""What a transformers policy remembers between two steps: keys and values, and what cross-attention looks at."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache

from lrl_core.interfaces import State
from lrl_plugins.policies.steps import Step


@dataclass(frozen=True)
class Context:
    """What a decoder looks at by cross-attention: an encoded sentence or picture."""

    states: Float[Tensor, "B N D"]
    """Encoder states, as wide as the decoder expects."""
    mask: Bool[Tensor, "B N"] | Bool[Tensor, "B T N"] | None
    """False on padding and on what a row, or each token of it, cannot see; None where all is seen."""

    def select(self, rows: Int[Tensor, " M"]) -> "Context":
        """The context of these rows, in this order."""
        return Context(self.states[rows], None if self.mask is None else self.mask[rows])

    def attended(self) -> Tensor | None:
        """The mask as transformers takes it."""
        return self.mask if self.mask is None or self.mask.ndim == 2 else self.mask[:, None]

    def remembered(self) -> "Context":
        """The same shape without the numbers, once the cache holds their keys and values: costs no memory."""
        return replace(self, states=self.states.new_zeros(1).expand(self.states.shape))


@dataclass
class CacheState(State):
    """Keys and values of everything read so far."""

    cache: Cache
    """Self-attention's, and cross-attention's where there is a context."""
    columns: int
    """How many columns the cache has."""
    mask: Bool[Tensor, "B L"] | None
    """False on fill tokens among them; None where there are none."""
    position: Int[Tensor, " B"] | None
    """Place of the next token in its row; None where that is `columns`."""
    context: Context | None
    """Shape and mask of what cross-attention looks at; None without an encoder."""
    steps: Step | None = None
    """The way around the decoder's modules; None where a step goes through them."""

    def select(self, rows: Int[Tensor, " N"]) -> "CacheState":
        self.cache.reorder_cache(rows)  # type: ignore[arg-type] # any integer tensor will do
        context = self.context
        if context is not None:
            states = context.states[:1].expand(len(rows), -1, -1)
            context = Context(states, None if context.mask is None else context.mask[rows])
        mask = None if self.mask is None else self.mask[rows]
        position = None if self.position is None else self.position[rows]
        return CacheState(self.cache, self.columns, mask, position, context, self.steps)

    def grown(self) -> "CacheState":
        """After one more real token in every row."""
        mask = None if self.mask is None else torch.nn.functional.pad(self.mask, (0, 1), value=True)
        position = None if self.position is None else self.position + 1
        return replace(self, columns=self.columns + 1, mask=mask, position=position)

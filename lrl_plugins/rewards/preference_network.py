"""The network of a preference model: a transformers trunk, one state per text, one number per state."""

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from lrl_plugins.text_models import is_causal

Pool = Literal["auto", "last", "first", "mean"]


class PreferenceNetwork(nn.Module):
    """Scores lines of ids: a scalar head on one state of a trunk. Read without dropout, also while it learns.

    Args:
        trunk: The model without a head.
        pool: Which state: of the last real token, of the first, the mean of all; auto: last in decoders, which see
            only what stands before, mean in encoders.
        learns: Whether the trunk learns; else the head alone does, on states that hold still.
    """

    def __init__(self, trunk: PreTrainedModel, pool: Pool, learns: bool) -> None:
        super().__init__()
        if pool not in get_args(Pool):
            raise ValueError(f"Preference: pool is {pool!r}; expected one of {', '.join(get_args(Pool))}. Correct it.")
        self.trunk = trunk.requires_grad_(learns)
        self.pool = pool if pool != "auto" else "last" if is_causal(trunk.config) else "mean"
        self.learns = learns
        self.head = fresh_head(_width(trunk.config))

    def forward(self, ids: Int[Tensor, "N L"], mask: Bool[Tensor, "N L"]) -> Float[Tensor, " N"]:
        """One number per line, in float32 also under autocast.

        Args:
            ids: Lines, padded anywhere.
            mask: Real tokens.
        """
        self.eval()
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            states = self.trunk(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            pooled = pool_states(states, mask, self.pool)
        with torch.autocast(pooled.device.type, enabled=False):
            return self.head(pooled.to(self.head.weight.dtype)).squeeze(1)


def fresh_head(width: int) -> nn.Linear:
    """A linear head D -> 1 with weights from N(0, 1 / (D + 1)), as in Ziegler et al. 2019 (variance), and bias 0.

    Args:
        width: D.
    """
    head = nn.Linear(width, 1)
    nn.init.normal_(head.weight, std=1 / math.sqrt(width + 1))
    nn.init.zeros_(head.bias)
    return head


def pool_states(states: Float[Tensor, "N L D"], mask: Bool[Tensor, "N L"], pool: str) -> Float[Tensor, "N D"]:
    """One state per line.

    Args:
        states: Of every token.
        mask: Real tokens.
        pool: last, first or mean.
    """
    if pool == "mean":
        real = mask[:, :, None].to(states.dtype)
        return (states * real).sum(1) / real.sum(1).clamp(min=1)
    places = last_real(mask) if pool == "last" else mask.long().argmax(1)
    return states[torch.arange(len(states), device=states.device), places]


def last_real(mask: Bool[Tensor, "N L"]) -> Int[Tensor, " N"]:
    """Column of the last real token of each line, wherever the padding stands; 0 where there is none.

    Args:
        mask: Real tokens.
    """
    columns = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, columns, 0).amax(1)


def _width(config: Any) -> int:
    return int(config.get_text_config().hidden_size)

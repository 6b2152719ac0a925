"""X-linear attention (Pan 2020, arXiv:2003.14080): bilinear pooling with a gate in space and one over channels."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

ALPHA = 1.3
"""Of the CELU; with it a block models interactions of infinite order (section 3.3)."""


class Sight(NamedTuple):
    """What a block looks at, projected once."""

    keys: Float[Tensor, "B N D"]
    """sigma(W_k K_i) of eq. 5."""
    values: Float[Tensor, "B N D"]
    """sigma(W_v V_i) of eq. 8."""
    mask: Bool[Tensor, "B N"] | None
    """False on padded regions; None where all are real."""


class Projection(nn.Module):
    """A linear layer, CELU, and a norm of each head's channels: sigma in the paper's equations.

    Every position is normalised by itself, so a row depends neither on other rows nor on padding.

    Args:
        width: Channels in and out.
        heads: Groups that are normalised apart.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.act = nn.CELU(ALPHA)
        self.norm = nn.GroupNorm(heads, width)

    def forward(self, inputs: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """One projected vector per position."""
        flat = self.act(self.linear(inputs)).reshape(-1, inputs.shape[-1])
        return self.norm(flat).reshape(inputs.shape)


class XLinearBlock(nn.Module):
    """One X-linear attention block: a query looks at regions (eq. 5 to 9).

    Args:
        width: Channels of query, regions and result.
        heads: Groups of channels that attend apart; a divisor of width, at least two channels each.
        dropout: Share of the bilinear key map's entries dropped in train mode.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.value = Projection(width, heads), Projection(width, heads)
        self.key_query, self.value_query = Projection(width, heads), Projection(width, heads)
        channels = width // heads
        self.pairs = nn.Sequential(nn.Linear(channels, channels // 2), nn.ReLU(), nn.Dropout(dropout))
        self.spatial = nn.Linear(channels // 2, 1, bias=False)  # a bias would cancel in the softmax
        self.channel = nn.Linear(channels // 2, channels)

    def look(self, regions: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None) -> Sight:
        """Project the regions, once for all queries."""
        return Sight(self.key(regions), self.value(regions), mask)

    def forward(self, query: Float[Tensor, "B D"], sight: Sight) -> Float[Tensor, "B D"]:
        """The regions as one vector, as the query sees them."""
        keys = sight.keys * self.key_query(query)[:, None]
        pairs = self.pairs(self._split(keys))
        mask = None if sight.mask is None else sight.mask[:, :, None, None]
        space = masked_softmax(self.spatial(pairs), mask)
        gate = torch.sigmoid(self.channel(masked_mean(pairs, mask)))
        pooled = (space * self._split(sight.values)).sum(1)
        return (gate * pooled).flatten(1) * self.value_query(query)

    def _split(self, channels: Float[Tensor, "B N D"]) -> Float[Tensor, "B N H C"]:
        return channels.unflatten(2, (self.heads, -1))


class EncoderLayer(nn.Module):
    """A block, and regions that learn what it saw.

    Args:
        width: Channels.
        heads: Groups of channels that attend apart.
        dropout: Share of entries dropped in train mode.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.block = XLinearBlock(width, heads, dropout)
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.CELU(ALPHA), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, query: Float[Tensor, "B D"], regions: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B N D"]]:
        """The next query and the next regions."""
        query = self.block(query, self.block.look(regions, mask))
        told = torch.cat([query[:, None].expand(regions.shape), regions], 2)
        return query, self.norm(self.update(told) + regions)


class XLinearEncoder(nn.Module):
    """A stack of X-linear blocks whose first query is the mean region (section 3.4).

    Args:
        width: Channels.
        heads: Groups of channels that attend apart.
        layers: How many blocks.
        dropout: Share of entries dropped in train mode.
    """

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.summary = nn.Sequential(nn.Linear((layers + 1) * width, width), nn.LayerNorm(width))

    def forward(
        self, regions: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        """The regions as the last block left them, and one vector for the whole picture."""
        query = masked_mean(regions, None if mask is None else mask[:, :, None])
        queries = [query]
        for layer in self.layers:
            query, regions = layer(query, regions, mask)
            queries.append(query)
        return regions, self.summary(torch.cat(queries, 1))


def masked_softmax(scores: Float[Tensor, "B N *rest"], mask: Bool[Tensor, "B N *ones"] | None) -> Tensor:
    """Softmax over the regions; 0 on padded ones, and everywhere in a row without regions."""
    if mask is None:
        return scores.softmax(1)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(1) * mask


def masked_mean(values: Float[Tensor, "B N *rest"], mask: Bool[Tensor, "B N *ones"] | None) -> Tensor:
    """Mean over the real regions; 0 where there is none."""
    if mask is None:
        return values.mean(1)
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)

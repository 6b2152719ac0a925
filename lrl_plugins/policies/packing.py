"""Prompts and episodes as one line of real tokens: no padding is read, and a prompt is read once for its episodes."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lrl_core.masks import length_mask
from lrl_plugins.policies.branches import tree_of
from lrl_plugins.policies.layout import Prefix

PACKED = "lrl_packed"
"""The name under which transformers knows `attend`."""


class Lengths:
    """Lines of unequal length, one after the other; knows the way to a rectangle and back.

    Args:
        lengths: How many tokens each line has.
    """

    def __init__(self, lengths: Int[Tensor, " R"]) -> None:
        self.rows, self.width = len(lengths), max(1, int(lengths.max()))
        mask = length_mask(lengths, self.width)
        self.lengths, self.mask = lengths, mask
        self.places = mask.flatten().nonzero().squeeze(1)
        self.starts = lengths.cumsum(0) - lengths
        self.full = len(self.places) == self.rows * self.width

    def columns(self) -> Int[Tensor, " N"]:
        """The place of each token in its line."""
        return self.places % self.width

    def rectangle(self, packed: Float[Tensor, "N H D"]) -> Float[Tensor, "R H W D"]:
        """One row per line, 0 behind its end."""
        if not self.full:
            empty = packed.new_zeros(self.rows * self.width, *packed.shape[1:])
            packed = empty.index_copy(0, self.places, packed)
        return packed.view(self.rows, self.width, *packed.shape[1:]).transpose(1, 2)

    def line(self, rectangle: Float[Tensor, "R H W D"]) -> Float[Tensor, "N H D"]:
        """Back again."""
        flat = rectangle.transpose(1, 2).flatten(0, 1)
        return flat if self.full else flat.index_select(0, self.places)


@dataclass(frozen=True)
class Packing:
    """How prompts and the episodes after them stand in one line, and who may look at whom."""

    prompts: Lengths
    """Of each distinct prompt."""
    episodes: Lengths
    """Of what is read of each episode: all tokens but the last."""
    asked: Int[Tensor, " B"]
    """Which prompt each episode belongs to."""
    ancestors: Bool[Tensor, "B W W"] | None = None
    """True where an episode's token may look at another one of it; None: at itself and at those before it."""

    def attend(
        self, query: Float[Tensor, "1 H N D"], key: Tensor, value: Tensor, scale: float | None, dropout: float
    ) -> Float[Tensor, "1 N H D"]:
        """Causal attention of each prompt to itself, and of each episode to its prompt and itself."""
        shared = query.shape[1] != key.shape[1]  # several heads ask of one
        settings: dict[str, Any] = {"scale": scale, "dropout_p": dropout, "enable_gqa": shared}
        count = len(self.prompts.places)
        lines = [x[0].transpose(0, 1).tensor_split([count]) for x in (query, key, value)]
        of_prompts, of_episodes = zip(*lines, strict=True)
        first = [self.prompts.rectangle(x) for x in of_prompts]
        read = self.prompts.line(_attention(first[0], first[1], first[2], is_causal=True, **settings))
        later = [self.episodes.rectangle(x) for x in of_episodes]
        keys, values = (
            torch.cat([before.index_select(0, self.asked), own], 2)
            for before, own in zip(first[1:], later[1:], strict=True)
        )
        answered = self.episodes.line(_attention(later[0], keys, values, attn_mask=self._mask(), **settings))
        return torch.cat([read, answered])[None]

    def _mask(self) -> Tensor:
        """True where an episode's token may look: at its whole prompt, and at what it has said so far."""
        width, device = self.episodes.width, self.asked.device
        own = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        if self.ancestors is not None:
            before = self.prompts.mask.index_select(0, self.asked)[:, None].expand(-1, width, -1)
            return torch.cat([before, self.ancestors], 2)[:, None]
        if self.prompts.full:
            return torch.cat([own.new_ones(width, self.prompts.width), own], 1)
        before = self.prompts.mask.index_select(0, self.asked)[:, None, None]
        return torch.cat([before.expand(-1, -1, width, -1), own.expand(len(self.asked), 1, -1, -1)], 3)


_attention = nn.functional.scaled_dot_product_attention


@dataclass(frozen=True)
class PackedLine:
    """Prompts and episodes as the model reads them."""

    tokens: Int[Tensor, "1 N"]
    """All prompts, then all episodes."""
    positions: Int[Tensor, "1 N"]
    """Place of each token in prompt and episode together."""
    packing: Packing
    """Where each begins."""
    follows: Int[Tensor, "B T"] | None = None
    """Which token of its episode each token follows, -1 for the prompt; None: the one before it."""

    def align(self, hidden: Float[Tensor, "1 N D"], steps: int) -> Float[Tensor, "B T D"]:
        """The state before each of `steps` episode tokens; what stands behind an episode's end is of no use."""
        prompts, episodes, asked = self.packing.prompts, self.packing.episodes, self.packing.asked
        last = (prompts.starts + prompts.lengths - 1)[asked]
        begin = len(prompts.places) + episodes.starts
        before = torch.arange(-1, steps - 1, device=asked.device) if self.follows is None else self.follows
        places = torch.where(before < 0, last[:, None], begin[:, None] + before)
        places = places.clamp(max=hidden.shape[1] - 1)
        return hidden[0].index_select(0, places.flatten()).view(*places.shape, -1)


def pack(
    prefix: Prefix,
    asked: Int[Tensor, " B"],
    episodes: Int[Tensor, "B T"],
    lengths: Int[Tensor, " B"],
    follows: Int[Tensor, "B T"] | None = None,
) -> PackedLine:
    """Put distinct prompts and episodes in one line.

    Args:
        prefix: What is read before an episode, once per distinct prompt.
        asked: Which of them each episode belongs to.
        episodes: Episode tokens, padded on the right.
        lengths: How many of them are real.
        follows: Which token of the episode each one follows, -1 for the prompt; None: the one before it.
    """
    before, after = Lengths(prefix.lengths), Lengths((lengths - 1).clamp(min=0))
    parts = [prefix.tokens[:, : before.width][before.mask], episodes[:, : after.width][after.mask]]
    tree = None if follows is None else tree_of(follows[:, : after.width])
    depths = after.columns() if tree is None else tree.depths[after.mask]
    positions = prefix.lengths[asked].repeat_interleave(after.lengths) + depths
    return PackedLine(
        torch.cat(parts)[None],
        torch.cat([before.columns(), positions])[None],
        Packing(before, after, asked, None if tree is None else tree.ancestors),
        follows,
    )


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for attention: its own function, unless the line is a packed one."""
    if packing is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **others
        )
    return packing.attend(query, key, value, scaling, dropout), None


AttentionInterface.register(PACKED, attend)
AttentionMaskInterface.register(PACKED, sdpa_mask)

"""How unequal prompts and their episodes stand in one rectangle of tokens, and where the shift by one is."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from lrl_core.masks import length_mask

Side = Literal["left", "right"]


class Prefix(NamedTuple):
    """What each row reads before its first episode token, padded on the right; never empty."""

    tokens: Int[Tensor, "B S"]
    """The tokens, begin token included."""
    lengths: Int[Tensor, " B"]
    """How many of them are real."""


class Line(NamedTuple):
    """Prefixes and episodes as the model reads them."""

    tokens: Int[Tensor, "B L"]
    """Fill tokens stand wherever nothing is to be read."""
    mask: Bool[Tensor, "B L"] | None
    """False where the model must not look; None where causality alone hides every fill token."""
    positions: Int[Tensor, "B L"] | None
    """Place of each token in its own row; None where that is the column."""
    before: Int[Tensor, " B"] | int
    """Column of the last prefix token: the state there is the one before the first episode token."""

    @property
    def uneven(self) -> bool:
        """Whether prefixes of different lengths stand here."""
        return self.mask is not None or not isinstance(self.before, int)

    def align(self, hidden: Float[Tensor, "B L D"], steps: int) -> Float[Tensor, "B T D"]:
        """The state before each of `steps` episode tokens: the one shift by one."""
        if isinstance(self.before, int):
            return hidden[:, self.before : self.before + steps]
        columns = self.before[:, None] + torch.arange(steps, device=hidden.device)
        return hidden.gather(1, columns[:, :, None].expand(-1, -1, hidden.shape[2]))


def trimmed_mask(lengths: Int[Tensor, " B"]) -> tuple[int, Bool[Tensor, "B W"] | None]:
    """The longest length, and the mask of that many columns; None where every row fills them all."""
    longest = int(lengths.max())
    full = bool((lengths == longest).all())
    return longest, None if full else length_mask(lengths, longest)


def begin_with(token: int, tokens: Int[Tensor, "B S"], lengths: Int[Tensor, " B"]) -> Prefix:
    """Prompts with one token put before them."""
    first = tokens.new_full((len(lengths), 1), token)
    return Prefix(torch.cat([first, tokens], 1), lengths + 1)


def lay_out(prefix: Prefix, episode: Int[Tensor, "B E"], lengths: Int[Tensor, " B"], side: Side) -> Line:
    """Put episodes behind their prefixes.

    "left": fill tokens, prefix, episode, fill tokens; all episodes start in one column. "right": prefix, episode,
    fill tokens; causality hides the fill tokens, so no mask is needed. Equal prefixes need neither.

    Args:
        prefix: What is read first.
        episode: Episode tokens that are read, the last one left out: nothing is asked behind it.
        lengths: How many tokens each whole episode has.
        side: Where the fill tokens of short prefixes stand.
    """
    fill = prefix.tokens[0, 0]  # never looked at, but an id that the model knows: a row's first token is real
    width = int(prefix.lengths.max())
    episode = episode.masked_fill(~length_mask(lengths, episode.shape[1]), fill)
    together = torch.cat([prefix.tokens[:, :width], episode], 1)
    missing = width - prefix.lengths
    if not bool(missing.any()):
        return Line(together, None, None, width - 1)
    columns = torch.arange(together.shape[1], device=together.device)
    if side == "left":
        mask = columns >= missing[:, None]
        positions = columns - missing[:, None]
        source = torch.where(columns < width, positions, columns).clamp(min=0)
        tokens = together.gather(1, source).masked_fill(~mask, fill)
        return Line(tokens, mask, positions.clamp(min=0), width - 1)
    source = torch.where(columns < prefix.lengths[:, None], columns, columns + missing[:, None])
    behind = source >= together.shape[1]
    tokens = together.gather(1, source.clamp(max=together.shape[1] - 1)).masked_fill(behind, fill)
    return Line(tokens, None, None, prefix.lengths - 1)


def spread(values: Shaped[Tensor, "G ..."], index: Int[Tensor, " B"]) -> Shaped[Tensor, "B ..."]:
    """Rows of distinct prompts copied to every row of the batch that asks the same (no copy where all differ)."""
    return values if len(values) == len(index) else values.index_select(0, index)

"""Lines of token ids as a discriminator reads them, and the balanced lessons that it learns from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lrl_core.masks import length_mask
from lrl_core.ranks import fewest_over_ranks
from lrl_core.rows import Rows
from lrl_core.types import Rollout


@dataclass(frozen=True)
class Lines(Rows):
    """What is judged, one line of ids per row."""

    tokens: Int[Tensor, "N L"]
    """Ids, 0 after the end of a line."""
    lengths: Int[Tensor, " N"]
    """How many of the L ids are real."""

    def __len__(self) -> int:
        return self.lengths.shape[0]

    @classmethod
    def of(cls, rollout: Rollout, seam: int | None = None) -> "Lines":
        """The episodes, an environment's words included.

        Args:
            rollout: Episodes, or human answers as if rolled out.
            seam: None: the episodes alone. An id: each prompt, this id, the episode.
        """
        if seam is None:
            return cls(rollout.tokens, rollout.lengths).trimmed()
        prompts = rollout.prompts
        before, after = (
            length_mask(lengths, tokens.shape[1])
            for tokens, lengths in ((prompts.tokens, prompts.lengths), (rollout.tokens, rollout.lengths))
        )
        lengths = prompts.lengths + 1 + rollout.lengths
        columns = torch.arange(before.shape[1] + 1 + after.shape[1], device=lengths.device)
        begin = prompts.lengths[:, None]
        tokens = torch.full((len(lengths), len(columns)), seam, device=lengths.device)
        tokens[columns < begin] = prompts.tokens[before]
        tokens[(columns > begin) & (columns < lengths[:, None])] = rollout.tokens[after]
        return cls(tokens, lengths).trimmed()

    def trimmed(self) -> "Lines":
        """The same lines without columns that are padding in all of them, 0 on other padding."""
        width = int(self.lengths.max()) if len(self) else 0
        tokens = self.tokens[:, :width]
        return Lines(torch.where(length_mask(self.lengths, width), tokens, 0), self.lengths)

    def parts(self, token_budget: int) -> list[Int[Tensor, " n"]]:
        """Row numbers in parts of at most so many padded ids, lines of like length together; a line is never cut."""
        return parts_of(self.lengths, token_budget)


@dataclass(frozen=True)
class Contrast(Rows):
    """A lesson: as many real lines as generated ones."""

    real: Lines
    """Written by people."""
    generated: Lines
    """Drawn from the policy."""

    def __len__(self) -> int:
        return len(self.real) + len(self.generated)

    def split(self, token_budget: int | None) -> list["Contrast"]:
        """Micro-batches of at most so many padded ids (None: one), each with as many real lines as generated ones."""
        if token_budget is None:
            return [self]
        real, generated = (side.select(side.lengths.argsort(stable=True)) for side in (self.real, self.generated))
        parts = parts_of(torch.maximum(real.lengths, generated.lengths), token_budget // 2)
        return [Contrast(real.select(rows).trimmed(), generated.select(rows).trimmed()) for rows in parts]


def parts_of(lengths: Int[Tensor, " N"], token_budget: int) -> list[Int[Tensor, " n"]]:
    """Row numbers in parts of at most so many padded ids, rows of like length together; a part has at least one row.

    Args:
        lengths: Of the rows.
        token_budget: Rows times the longest of them, at most.
    """
    order = lengths.argsort(stable=True)
    cuts, start = [], 0
    for place, length in enumerate(lengths[order].tolist()):
        if place > start and (place + 1 - start) * length > token_budget:
            cuts.append(place)
            start = place
    return list(order.tensor_split(cuts))


def balanced(real: Lines, generated: Lines, batch_size: int, epochs: int) -> Iterator[Contrast]:
    """Shuffled minibatches with as many real lines as generated ones; as many minibatches on every rank.

    Each epoch takes as many lines of the larger side as the smaller one has, drawn anew from torch's generator.

    Args:
        real: Written by people.
        generated: Drawn from the policy.
        batch_size: Lines of each side in a minibatch; more on a rank that has more lines than another.
        epochs: Passes over the smaller side.
    """
    sides = (real, generated)
    mine = min(map(len, sides))
    minibatches = -(-fewest_over_ranks(mine, real.lengths.device) // batch_size)
    for _ in range(epochs if minibatches else 0):
        orders = [torch.randperm(len(side))[:mine].to(side.lengths.device) for side in sides]
        for rows in zip(*(order.tensor_split(minibatches) for order in orders), strict=True):
            yield Contrast(*(side.select(these).trimmed() for side, these in zip(sides, rows, strict=True)))

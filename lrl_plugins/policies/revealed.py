"""A prompt that is shown piece by piece: how much of an encoded source each token of an episode may look at."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lrl_core.interfaces import State
from lrl_core.types import Prompts
from lrl_plugins.policies.layout import spread
from lrl_plugins.policies.transformers_state import CacheState

Source = Literal["whole", "causal", "reread"]
"""How an encoder reads a prompt: at once; each token knowing only those before it; or anew after every piece."""


@dataclass(frozen=True)
class Revealed:
    """What can be seen of the encoder states after 0..R reads."""

    counts: Int[Tensor, "B P"]
    """Encoder states of one reading that can be seen after so many reads; the last number holds from then on."""
    width: int
    """Encoder states of one reading."""
    readings: int
    """How many readings stand side by side: 1 (a causal encoder's), or one after each read."""

    def select(self, rows: Int[Tensor, " N"]) -> "Revealed":
        """The same for these rows."""
        return replace(self, counts=self.counts[rows])

    def mask(self, reads: Int[Tensor, "B T"]) -> Bool[Tensor, "B T N"]:
        """What can be seen after so many reads: the beginning of the one reading, or of the reading of that moment."""
        reads = reads.clamp(max=self.counts.shape[1] - 1)
        columns = torch.arange(self.width * self.readings, device=reads.device)
        seen = columns % self.width < self.counts.gather(1, reads)[:, :, None]
        return seen if self.readings == 1 else seen & (columns // self.width == reads[:, :, None])


@dataclass
class RevealedState(State):
    """A decoder's memory, and how many reads each row has made."""

    inner: CacheState
    """Keys and values."""
    revealed: Revealed
    """What can be seen after how many reads."""
    reads: Int[Tensor, " B"]
    """Reads so far."""

    def select(self, rows: Int[Tensor, " N"]) -> "RevealedState":
        return RevealedState(self.inner.select(rows), self.revealed.select(rows), self.reads[rows])

    def after(self, read: Bool[Tensor, " B"]) -> "RevealedState":
        """Once one more token is read, which is a read in some rows: what the next token may look at."""
        reads = self.reads + read
        assert self.inner.context is not None
        seen = replace(self.inner.context, mask=self.revealed.mask(reads[:, None])[:, 0])
        return RevealedState(replace(self.inner, context=seen), self.revealed, reads)


def visible(prompts: Prompts, before: int, behind: int, who: str) -> Int[Tensor, "B P"]:
    """How many encoder inputs can be seen after 0..R reads, from the task's `visible` feature.

    Args:
        prompts: The prompts.
        before: Tokens that the policy puts before every prompt: always seen.
        behind: Tokens that it puts behind: seen together with the last token of the prompt.
        who: Name of the policy, for errors.
    """
    if "visible" not in prompts.features:
        raise ValueError(
            f"{who}: got prompts with features {sorted(prompts.features)}; expected `visible` [B, R + 1], the number "
            "of prompt tokens that can be seen after 0..R reads. Let the task give it with every batch."
        )
    counts = prompts.features["visible"].cummax(1).values  # a batch that was joined with a wider one ends with zeros
    seen = counts + before + behind * (counts >= prompts.lengths[:, None])
    if int(seen.min()) == 0:
        raise ValueError(
            f"{who}: in some rows nothing can be seen before the first read; expected at least one encoder input. "
            "Let the task show the first piece at once, or set begin_with_bos: true."
        )
    return seen


def every_reading(
    source: Int[Tensor, "G N"], counts: Int[Tensor, "G P"]
) -> tuple[Int[Tensor, "M N"], Int[Tensor, " M"]]:
    """The beginnings of each source that are read after 0..R reads, as sources of their own, and their lengths."""
    return source.repeat_interleave(counts.shape[1], 0), counts.flatten()


def causal_mask(width: int, device: torch.device) -> Bool[Tensor, "1 1 N N"]:
    """Lets an encoder's token look at itself and at those before it."""
    return torch.ones(width, width, dtype=torch.bool, device=device).tril()[None, None]


def reads_before(tokens: Int[Tensor, "B T"], reads: tuple[int, ...]) -> Int[Tensor, "B T"]:
    """How many reads stand before each token of the episodes.

    Args:
        tokens: The episodes.
        reads: Ids of the tokens that read.
    """
    made = is_read(tokens, reads).long()
    return made.cumsum(1) - made


def is_read(tokens: Int[Tensor, "*rows"], reads: tuple[int, ...]) -> Bool[Tensor, "*rows"]:
    """Which tokens show one more piece of the prompt."""
    return torch.isin(tokens, torch.tensor(reads, device=tokens.device))


def spread_revealed(revealed: Revealed, index: Int[Tensor, " B"]) -> Revealed:
    """What holds for distinct prompts, for every row that asks the same."""
    return replace(revealed, counts=spread(revealed.counts, index))

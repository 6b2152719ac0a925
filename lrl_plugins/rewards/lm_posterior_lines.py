"""What a language model reads to say how likely every beginning of an episode is, and the sums of what it says.

Letters: N words of the longest episode, M = N + 1 beginnings of it, K tails per row, R lines that are read, L their
length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot, pad

from lrl_core.masks import length_mask
from lrl_core.rows import Rows
from lrl_core.sampling import Sampling
from lrl_core.types import PolicyOutput, Prompts, Rollout

Tail = tuple[int, ...]
"""Ids that may stand after an episode."""


@dataclass(frozen=True)
class Said(Rows):
    """Episodes without their end token, with what stands before and after them."""

    prompts: Prompts
    """What stands before."""
    tokens: Int[Tensor, "B N"]
    """The words."""
    lengths: Int[Tensor, " B"]
    """How many of the N are real."""
    tails: tuple[tuple[Tail, ...], ...]
    """K tails of each row; K = 0 where an episode is to be followed by its end alone."""

    @classmethod
    def of(cls, rollout: Rollout, prompts: Prompts, tails: tuple[tuple[Tail, ...], ...], eos: int) -> "Said":
        """The episodes up to their end token; whole where the length limit cut them.

        Args:
            rollout: The episodes.
            prompts: What stands before, row by row.
            tails: What may stand after, row by row.
            eos: The end token.
        """
        last = pad(rollout.tokens, (1, 0)).gather(1, rollout.lengths[:, None]).squeeze(1)
        lengths = rollout.lengths - ((last == eos) & (rollout.lengths > 0)).to(rollout.lengths.dtype)
        longest = int(lengths.max()) if len(lengths) else 0
        return cls(prompts, rollout.tokens[:, :longest], lengths, tails)

    @property
    def kinds(self) -> int:
        """K: tails per row."""
        return len(self.tails[0]) if self.tails else 0


@dataclass(frozen=True)
class Sheet(Rows):
    """Lines to be read, and what each of their tokens counts for."""

    rollout: Rollout
    """The lines. `closed` is True where an episode's words stand, so that their bans hold there; tails have none."""
    owner: Int[Tensor, "R L"]
    """Which of the sums each token is part of: row x (N + M x K) + its place, or N + beginning x K + tail; the number
    after the last one for tokens that are only read."""


@dataclass(frozen=True)
class _Line:
    """One line of a sheet, as lists."""

    row: int
    ids: list[int]
    owner: list[int]
    follows: list[int]


def ended(said: Said, eos: int, sampling: Sampling) -> Rollout:
    """The episodes, each with its end: one reading then gives the stop after every beginning.

    Args:
        said: Episodes.
        eos: The end token.
        sampling: What is banned.
    """
    tokens = pad(said.tokens, (0, 1)).scatter(1, said.lengths[:, None], eos)
    return replace(_read(said.prompts, tokens, said.lengths + 1), sampling=sampling)


def tree(said: Said) -> Sheet:
    """One line per row: the words, then every tail after every beginning, as branches (`Rollout.follows`)."""
    return _sheet(said, _trees(said), branches=True)


def rows_of_beginnings(said: Said) -> Sheet:
    """One line per beginning and tail, for policies that read no branches."""
    return _sheet(said, _beginnings(said), branches=False)


def whole(said: Said) -> Sheet:
    """One line per row and tail: all its words, then the tail."""
    return _sheet(said, _beginnings(said, last=True), branches=False)


def _trees(said: Said) -> Iterator[_Line]:
    steps, width = _widths(said)
    for row, (ids, tails) in enumerate(zip(_words(said), said.tails, strict=True)):
        places = range(len(ids))
        line = _Line(row, list(ids), [row * width + place for place in places], [place - 1 for place in places])
        for slot in range((len(ids) + 1) * len(tails)):
            tail, first = tails[slot % len(tails)], len(line.ids)
            line.ids.extend(tail)
            line.owner.extend([row * width + steps + slot] * len(tail))
            line.follows.extend([slot // len(tails) - 1, *range(first, first + len(tail) - 1)] if tail else [])
        yield line


def _beginnings(said: Said, last: bool = False) -> Iterator[_Line]:
    """Lines for every beginning, or for the last one alone; the words count where they are all there, once."""
    steps, width = _widths(said)
    for row, (ids, tails) in enumerate(zip(_words(said), said.tails, strict=True)):
        for slot in range(len(ids) * len(tails) if last else 0, (len(ids) + 1) * len(tails)):
            length, tail = slot // len(tails), tails[slot % len(tails)]
            counts = slot == len(ids) * len(tails)
            words = range(row * width, row * width + length) if counts else [len(said.tails) * width] * length
            owner = [*words, *[row * width + steps + slot] * len(tail)]
            yield _Line(row, [*ids[:length], *tail], owner, list(range(-1, length + len(tail) - 1)))


def _words(said: Said) -> list[list[int]]:
    return [ids[:length] for ids, length in zip(said.tokens.tolist(), said.lengths.tolist(), strict=True)]


def _widths(said: Said) -> tuple[int, int]:
    """N, and how many sums there are per row."""
    steps = said.tokens.shape[1]
    return steps, steps + (steps + 1) * said.kinds


def _sheet(said: Said, lines: Iterator[_Line] | Sequence[_Line], branches: bool) -> Sheet:
    lines = list(lines)
    device = said.tokens.device
    steps, width = _widths(said)
    nobody = len(said.tails) * width
    lengths = torch.tensor([len(line.ids) for line in lines], device=device, dtype=torch.long)
    tokens = _padded([line.ids for line in lines], 0, device)
    owner = _padded([line.owner for line in lines], nobody, device)
    rows = torch.tensor([line.row for line in lines], device=device, dtype=torch.long)
    read = _read(said.prompts.select(rows), tokens, lengths)
    rollout = replace(
        read,
        action_mask=owner != nobody,
        closed=(owner != nobody) & (owner % max(1, width) < steps),
        follows=_padded([line.follows for line in lines], -1, device) if branches else None,
    )
    return Sheet(rollout, owner)


def _padded(lines: list[list[int]], fill: int, device: torch.device) -> Int[Tensor, "R L"]:
    longest = max(map(len, lines), default=0)
    filled = [line + [fill] * (longest - len(line)) for line in lines]
    return torch.tensor(filled, device=device, dtype=torch.long).view(len(lines), longest)


def _read(prompts: Prompts, tokens: Int[Tensor, "R L"], lengths: Int[Tensor, " R"]) -> Rollout:
    """Lines of which every token is asked for."""
    return Rollout(
        prompts=prompts,
        tokens=tokens,
        lengths=lengths,
        action_mask=length_mask(lengths, tokens.shape[1]),
        logprobs=torch.zeros(tokens.shape, device=tokens.device),
        terminated=torch.ones_like(lengths, dtype=torch.bool),
    )


def spoken(output: PolicyOutput, bans: Sampling) -> tuple[Float[Tensor, "R L"]]:
    """Log-probabilities of a sheet's tokens: words under the bans that they were drawn under, tails under none.

    Nobody chooses a tail: it may hold tokens that an episode may not.

    Args:
        output: What the language model says of the sheet's lines.
        bans: What the words could not be.
    """
    rollout, states = output.rollout, output.states
    assert rollout.closed is not None

    def under(sampling: Sampling | None, where: Bool[Tensor, "R L"]) -> Float[Tensor, "R L"]:
        asked = replace(rollout, sampling=sampling, action_mask=rollout.action_mask & where, closed=None)
        return PolicyOutput(asked, states, output.head, output.eos).logprobs

    return (under(bans, rollout.closed) + under(None, ~rollout.closed),)


def added_up(
    sheet: Sheet, logprobs: Float[Tensor, "R L"], said: Said
) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B M K"]]:
    """Log-probabilities of an episode's words, and of each tail after each beginning.

    Args:
        sheet: What was read.
        logprobs: What was said of its tokens.
        said: What the sheet was made of.
    """
    steps, width = _widths(said)
    sums = logprobs.new_zeros(len(said.tails) * width + 1)
    sums.scatter_add_(0, sheet.owner.flatten(), logprobs.flatten())
    rows = sums[:-1].view(len(said.tails), width)
    return rows[:, :steps], rows[:, steps:].view(len(rows), steps + 1, said.kinds)


def of_right_label(tails: Float[Tensor, "B M K"], right: Int[Tensor, " B"], wrong_label: float) -> Float[Tensor, "B M"]:
    """The right label's log-probability after each beginning, and a penalty where another one is likelier.

    Args:
        tails: Log-probabilities of the labels.
        right: Which label is right.
        wrong_label: What is added where another label is likelier.
    """
    own = one_hot(right, tails.shape[2]).bool()[:, None]
    mine = tails.masked_fill(~own, 0).sum(2)
    return torch.where(tails.masked_fill(own, -torch.inf).amax(2) > mine, mine + wrong_label, mine)


def by_beginning(
    words: Float[Tensor, "B N"],
    ends: Float[Tensor, "B M"],
    lengths: Int[Tensor, " B"],
    width: int,
    shortest: int = 0,
    floor: float = -99.0,
) -> Float[Tensor, "B P"]:
    """log R of stopping after 0, 1, 2, ... words: sum of log p(z_k) over k <= t, plus log p of what then follows.

    (Hu et al. 2024, section 3.) A finished episode's value is repeated to the end of the line.

    Args:
        words: Log-probability of each word given those before it; anything after `lengths`.
        ends: Log-probability of what follows each beginning: the stop, or a tail.
        lengths: Words per row.
        width: How many numbers per row are wanted.
        shortest: An episode has at least so many tokens, its end counted; shorter ones are worth `floor`.
        floor: Also the worth of what cannot be said at all, in place of -inf.
    """
    worth = pad(words.cumsum(1), (1, 0)) + ends
    short = torch.arange(worth.shape[1], device=worth.device) + 1 < shortest
    worth = worth.masked_fill(short | (worth == -torch.inf), floor)
    return worth.gather(1, torch.arange(width, device=worth.device).minimum(lengths[:, None]))

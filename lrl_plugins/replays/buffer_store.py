"""What a replay buffer keeps: the best episodes of each prompt, without near copies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lrl_core.masks import length_mask
from lrl_core.metrics.edit_distance import edit_distances
from lrl_core.sampling import Sampling
from lrl_core.types import Prompts, RewardSignal, Rollout


@dataclass(frozen=True)
class Item:
    """One episode with its reward, as plain numbers."""

    tokens: tuple[int, ...]
    """The line, an environment's words included."""
    chosen: tuple[bool, ...]
    """Which of them the policy chose."""
    terminated: bool
    """Whether it ended by itself."""
    text: str = ""
    """The same as text."""
    total: float | None = None
    """Its reward; None where the recipe names none."""
    by_prefix: tuple[float, ...] | None = None
    """Worth of stopping after 0, 1, ... tokens, untempered; None where prefixes are not judged."""
    parts: dict[str, float] = field(default_factory=dict)
    """The reward's components, for logs."""

    def words(self, eos: int | None) -> tuple[int, ...]:
        """The tokens without the end token that closes them."""
        return self.tokens[:-1] if self.terminated and self.tokens[-1:] == (eos,) else self.tokens


Named = tuple[int, Item]
"""An episode and the group number of its prompt."""


class Memory:
    """At most so many episodes per prompt.

    An episode that is there already is stored once, with its newest reward. Of two whose edit distance is small for
    their lengths the one with the higher reward stays. A full prompt loses the lowest reward, or, without rewards, the
    oldest episode.

    Args:
        size: Episodes per prompt.
        distance: Two episodes are alike below this share of their summed lengths; 0 drops exact copies alone.
        eos: The end token, which does not count in edit distances; None where there is none.
    """

    def __init__(self, size: int, distance: float, eos: int | None = None) -> None:
        self.size, self.distance, self.eos = size, distance, eos
        self.prompts: dict[int, list[Item]] = {}

    def add(self, group: int, item: Item) -> None:
        """Store an episode, if it is good or different enough."""
        stored = [old for old in self.prompts.get(group, []) if old.tokens != item.tokens]
        if item.total is not None:
            alike = self._alike(item, stored)
            if any(twin and worth(old) >= item.total for old, twin in zip(stored, alike, strict=True)):
                self.prompts[group] = stored  # without an older copy of it, too
                return
            stored = [old for old, twin in zip(stored, alike, strict=True) if not twin]
        stored.append(item)
        if len(stored) > self.size:
            # Among equals the oldest goes.
            del stored[min(range(len(stored)), key=lambda i: worth(stored[i]))]
        self.prompts[group] = stored

    def _alike(self, item: Item, stored: Sequence[Item]) -> list[bool]:
        """Which stored episodes are too near to a new one."""
        own, others = item.words(self.eos), [old.words(self.eos) for old in stored]
        if not others or self.distance == 0:
            return [False] * len(others)
        edits = edit_distances([own] * len(others), others).tolist()
        return [n < self.distance * (len(own) + len(other)) for n, other in zip(edits, others, strict=True)]

    def draw(self, group: int, count: int, temperature: float | None) -> list[Item]:
        """Episodes of one prompt, none twice as far as there are enough; from torch's global generator.

        Args:
            group: A prompt with episodes.
            count: How many.
            temperature: Their chances are proportional to exp(reward / temperature); None: all alike.
        """
        stored = self.prompts[group]
        scores = torch.tensor([worth(item) for item in stored], dtype=torch.float64)
        scores = torch.zeros_like(scores) if temperature is None else scores / temperature
        if len(stored) < count:
            rows = torch.multinomial(scores.softmax(0), count, replacement=True)
        else:  # exponential races: one draw after the other without replacement, also where a chance rounds to 0
            rows = (scores - torch.empty_like(scores).exponential_().log()).topk(count).indices
        return [stored[row] for row in rows.tolist()]

    def state(self) -> dict[str, Any]:
        """Everything in a few tensors and lists of plain values, for a checkpoint."""
        rows = [(group, item) for group, items in self.prompts.items() for item in items]
        items = [item for _, item in rows]
        prefixes = [item.by_prefix or () for item in items]
        return {
            "group": torch.tensor([group for group, _ in rows], dtype=torch.long),
            "lengths": torch.tensor([len(item.tokens) for item in items], dtype=torch.long),
            "tokens": torch.tensor([token for item in items for token in item.tokens], dtype=torch.long),
            "chosen": torch.tensor([chosen for item in items for chosen in item.chosen], dtype=torch.bool),
            "terminated": torch.tensor([item.terminated for item in items], dtype=torch.bool),
            "total": torch.tensor(
                [torch.nan if item.total is None else item.total for item in items], dtype=torch.float64
            ),
            "prefixes": torch.tensor([len(worths) for worths in prefixes], dtype=torch.long),
            "by_prefix": torch.tensor([one for worths in prefixes for one in worths], dtype=torch.float64),
            "texts": [item.text for item in items],
            "parts": [item.parts for item in items],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        sizes = state["lengths"].tolist()
        tokens, chosen = (torch.split(state[name], sizes) for name in ("tokens", "chosen"))
        prefixes = torch.split(state["by_prefix"], state["prefixes"].tolist())
        self.prompts = {}
        for row, group in enumerate(state["group"].tolist()):
            total = float(state["total"][row])
            item = Item(
                tuple(tokens[row].tolist()),
                tuple(chosen[row].tolist()),
                bool(state["terminated"][row]),
                state["texts"][row],
                None if total != total else total,
                tuple(prefixes[row].tolist()) or None,
                state["parts"][row],
            )
            self.prompts.setdefault(group, []).append(item)


def worth(item: Item) -> float:
    """The reward of an episode; 0 where there are no rewards, so that age alone tells episodes apart."""
    return 0.0 if item.total is None else item.total


def items_of(rollout: Rollout, reward: RewardSignal | None) -> list[Named]:
    """The episodes one by one; those that the reward could not judge are left out."""
    tokens, chosen = rollout.tokens.tolist(), rollout.action_mask.tolist()
    totals = [None] * len(rollout) if reward is None else reward.total.tolist()
    worths = None if reward is None or reward.by_prefix is None else reward.by_prefix.tolist()
    parts = {} if reward is None else {name: part.tolist() for name, part in reward.parts.items()}
    ended, groups = rollout.terminated.tolist(), rollout.prompts.group.tolist()
    named = []
    for row, length in enumerate(rollout.lengths.tolist()):
        if totals[row] != totals[row]:
            continue  # NaN
        item = Item(
            tuple(tokens[row][:length]),
            tuple(chosen[row][:length]),
            ended[row],
            rollout.texts[row] if rollout.texts else "",
            totals[row],
            None if worths is None else tuple(worths[row][: length + 1]),
            {name: values[row] for name, values in parts.items()},
        )
        named.append((groups[row], item))
    return named


def rollout_of(items: Sequence[Item], prompts: Prompts, sampling: Sampling, pad: int) -> Rollout:
    """Stored episodes as a rollout, whose log-probabilities nobody knows any more: they are 0.

    Args:
        items: The episodes.
        prompts: Their prompts, row by row.
        sampling: The distribution under which they are read.
        pad: Fills the lines behind them.
    """
    device = prompts.lengths.device
    lengths = torch.tensor([len(item.tokens) for item in items], device=device)
    width = int(lengths.max())
    tokens = torch.tensor(_filled([item.tokens for item in items], width, pad), device=device)
    chosen = torch.tensor(_filled([item.chosen for item in items], width, False), device=device)
    return Rollout(
        prompts=prompts,
        tokens=tokens,
        lengths=lengths,
        action_mask=chosen & length_mask(lengths, width),
        logprobs=torch.zeros(tokens.shape, device=device),
        terminated=torch.tensor([item.terminated for item in items], device=device),
        sampling=sampling,
        texts=tuple(item.text for item in items),
    )


def reward_of(items: Sequence[Item], device: torch.device) -> RewardSignal | None:
    """What was said of stored episodes; None where the recipe names no reward."""
    totals = [item.total for item in items if item.total is not None]
    if len(totals) < len(items):
        return None
    width = max(len(item.tokens) for item in items) + 1
    worths = [item.by_prefix for item in items if item.by_prefix]
    by_prefix = [[*row, *[row[-1]] * (width - len(row))] for row in worths] if len(worths) == len(items) else None
    names = set.intersection(*(set(item.parts) for item in items))
    return RewardSignal(
        torch.tensor(totals, device=device),
        by_prefix=None if by_prefix is None else torch.tensor(by_prefix, device=device),
        parts={name: torch.tensor([item.parts[name] for item in items], device=device) for name in sorted(names)},
    )


def possible(rollout: Rollout, sampling: Sampling) -> Tensor:
    """Which episodes [B] could have been drawn: no banned token was chosen, and the limit was kept.

    Args:
        rollout: Episodes from anywhere.
        sampling: What is never drawn; the minimal length does not count.
    """
    tokens, mask = rollout.tokens, rollout.action_mask
    wrong = mask & torch.isin(tokens, torch.tensor(sampling.banned, device=tokens.device, dtype=tokens.dtype))
    if sampling.limit is not None:
        late = torch.arange(tokens.shape[1], device=tokens.device) + 1 >= sampling.limit
        wrong |= mask & late & (tokens != sampling.eos)
    at = mask.nonzero(as_tuple=True)
    bans = sampling.bans(tokens, at)
    if bans is not None:
        repeated = bans.row[tokens[at][bans.row] == bans.token]
        wrong[at[0][repeated], at[1][repeated]] = True
    return ~wrong.any(1)


def _filled(lines: Iterable[Sequence[Any]], width: int, fill: Any) -> list[list[Any]]:
    return [[*line, *[fill] * (width - len(line))] for line in lines]

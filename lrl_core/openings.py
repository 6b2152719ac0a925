"""Episodes that begin alike are played as one until they part: which rows wait, and whose state they then take over."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Joining(NamedTuple):
    """Episodes that take over another one's state once their own opening has been read."""

    at: dict[int, tuple[list[int], list[int]]]
    """Step -> the episodes that begin to be played there, and for each of them the episode whose state it takes."""
    waiting: frozenset[int]
    """All episodes that begin later than at the first step's start."""

    def rows(self, t: int, held: Int[Tensor, " b"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]] | None:
        """The episodes that begin at step t and the row of the state that each takes over; None where there are none.

        Args:
            t: The step.
            held: Which episode each row of the state is.
        """
        if t not in self.at:
            return None
        episodes, leaders = (torch.tensor(listed, device=held.device) for listed in self.at[t])
        order = held.argsort()
        return episodes, order[torch.searchsorted(held[order], leaders)]


def shared(prompt: Sequence[int], openings: Sequence[Sequence[int]], max_length: int, eos: int | None) -> Joining:
    """Which episodes can wait, because another one of the same prompt begins with their whole opening.

    Args:
        prompt: Equal number = same prompt, of each episode.
        openings: What each episode begins with.
        max_length: Length limit of the episodes.
        eos: An opening that ends with this token is a whole episode and waits for nobody; None: there is no such token.
    """
    at: dict[int, tuple[list[int], list[int]]] = {}
    # In falling order what begins with a line stands right before it.
    order = sorted(range(len(openings)), key=lambda episode: (prompt[episode], tuple(openings[episode])), reverse=True)
    leader: int | None = None
    for episode in order:
        opening, length = tuple(openings[episode]), len(openings[episode])
        whole = length >= max_length or opening[-1:] == (eos,)
        same = leader is not None and prompt[leader] == prompt[episode]
        if leader is not None and same and not whole and tuple(openings[leader][:length]) == opening:
            episodes, leaders = at.setdefault(length, ([], []))
            episodes.append(episode)
            leaders.append(leader)
        else:
            leader = episode
    return Joining(at, frozenset(episode for episodes, _ in at.values() for episode in episodes))

"""A sentence that is still being spoken: READ shows one more word of it, any other token is written down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lrl_core.interfaces import Environment
from lrl_core.types import Prompts, Reply


@dataclass
class Listening:
    """How far one sentence has been heard."""

    words: tuple[tuple[int, ...], ...]
    """The sentence, each word as token ids."""
    heard: int
    """Words heard so far."""


class Speaker(Environment):
    """Shows the source word by word, one for every READ, and says when it is over: READ is closed from then on.

    Nothing is paid: rewards look at the whole episode. The words come by cross-attention (the policy counts the READs
    and `visible` tells it how far to look) or, where `spoken`, they enter the line as words of the world.

    Args:
        read: Id of the token that reads.
        first: Words heard before the first action.
        spoken: Whether words enter the line.
    """

    def __init__(self, read: int, first: int, spoken: bool) -> None:
        super().__init__()
        self.read, self.shown, self.spoken = read, first, spoken
        self.turn_ends = self.closes = (read,)
        self.reads = () if spoken else (read,)

    def start(self, prompts: Prompts) -> list[Listening]:
        """Every sentence from its beginning."""
        return [Listening(example["pieces"], min(self.shown, len(example["pieces"]))) for example in prompts.examples]

    def closed(self, state: Any) -> bool:
        """Whether the sentence is over."""
        assert isinstance(state, Listening)
        return state.heard >= len(state.words)

    def reply(self, state: Any, said: Sequence[int]) -> Reply:
        """The next word, after a READ; silence after the end token."""
        assert isinstance(state, Listening)
        if said[-1] != self.read or self.closed(state):
            return Reply()
        state.heard += 1
        return Reply(state.words[state.heard - 1] if self.spoken else ())

    def speech(self, tokens: Sequence[int], chosen: Sequence[bool]) -> list[int]:
        """What was written: the policy's own tokens without the READs."""
        return [token for token, own in zip(tokens, chosen, strict=True) if own and token != self.read]

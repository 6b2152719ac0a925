"""Somebody who answers in tests: no luck, no patience, and a different answer to everything that can be said."""

from collections.abc import Sequence

from lrl_core.interfaces import Environment
from lrl_core.types import Prompts, Reply


class ToyOracle(Environment):
    """Answers zero to two words that depend on all it has heard and on the prompt's group, and keeps what it heard.

    It pays 1 for each time that a turn has the first of its words. Where it closes tokens, they are closed before its
    first answer, open before its second, and so on by turns.

    Args:
        turn_ends: Token ids that hand over to it.
        longest_turn: Hands over after so many tokens at the latest; None for no such limit.
        closes: Token ids that it closes.
        turns: It ends the conversation with this answer.
        words: Token ids that it says.
    """

    def __init__(
        self,
        turn_ends: tuple[int, ...] = (1,),
        longest_turn: int | None = None,
        closes: tuple[int, ...] = (),
        turns: int = 3,
        words: tuple[int, ...] = (0, 1, 2),
    ) -> None:
        super().__init__()
        self.turn_ends, self.longest_turn, self.closes = turn_ends, longest_turn, closes
        self.turns, self.words = turns, words
        self.heard: list[list[list[int]]] = []

    def start(self, prompts: Prompts) -> list[tuple[int, list[list[int]]]]:
        """The prompt's group, and every turn that was heard: also in `heard`, for tests that want to know."""
        self.heard = [[] for _ in range(len(prompts))]
        return list(zip(prompts.group.tolist(), self.heard, strict=True))

    def reply(self, state: tuple[int, list[list[int]]], said: Sequence[int]) -> Reply:
        """Words, pay and perhaps the end."""
        group, heard = state
        heard.append(list(said))
        number = group + len(heard) + sum(map(sum, heard))
        words = [self.words[(number + i) % len(self.words)] for i in range(number % 3)]
        return Reply(words, reward=float(list(said).count(self.words[0])), done=len(heard) == self.turns)

    def closed(self, state: tuple[int, list[list[int]]]) -> bool:
        """By turns, closed first."""
        return len(state[1]) % 2 == 0

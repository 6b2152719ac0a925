"""A calculator that answers whenever the policy writes an equals sign."""

from collections.abc import Sequence
from dataclasses import dataclass

from lrl_core.interfaces import Environment
from lrl_core.types import Prompts, Reply
from lrl_plugins.tasks.text.number_tokenizer import NumberTokenizer


@dataclass(frozen=True)
class Laid:
    """A worked line as it stands in an episode with a calculator."""

    tokens: tuple[int, ...]
    """The line."""
    own: tuple[bool, ...]
    """False on what the calculator says."""


class Calculator(Environment):
    """After "=" it says what the two numbers before it come to (the tool of Hu et al. 2024, arXiv 2310.04363).

    It reads the number, operator and number that stand right before the sign: of `3 + 4 - 5 =` the last two operands.
    Where no such thing stands there, or the result has no token, it says nothing and the episode goes on. Nothing is
    paid.

    Args:
        tokenizer: The task's.
    """

    def __init__(self, tokenizer: NumberTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.equals = tokenizer.id("=")
        self.turn_ends = (self.equals,)
        self._signs = {tokenizer.id("+"): 1, tokenizer.id("-"): -1}

    def start(self, prompts: Prompts) -> list[list[int]]:
        """Nothing has been written yet."""
        return [[] for _ in range(len(prompts))]

    def reply(self, state: list[int], said: Sequence[int]) -> Reply:
        state.extend(said)
        result = self.result(state) if said[-1] == self.equals else None
        if result is None:
            return Reply()
        state.append(result)
        return Reply((result,))

    def result(self, line: Sequence[int]) -> int | None:
        """The token that the calculator says after a line that ends with "="; None for silence."""
        if len(line) < 4:
            return None
        left, sign, right = self.tokenizer.number(line[-4]), self._signs.get(line[-3]), self.tokenizer.number(line[-2])
        if left is None or sign is None or right is None:
            return None
        return self.tokenizer.of_number(left + sign * right)

    def lay(self, line: Sequence[int]) -> Laid:
        """A line of a person as if written with the calculator: its replies stand in it, marked as not one's own.

        Results that the person has left out are put in; ValueError where one has been written that the calculator
        would not say.

        Args:
            line: Token ids.
        """
        tokens, own = list[int](), list[bool]()
        coming: int | None = None
        for token in line:
            if coming is not None:
                if token != coming and self.tokenizer.number(token) is not None:
                    raise ValueError(f"{self.tokenizer.decode([*tokens, token])!r}")
                tokens, own = [*tokens, coming], [*own, False]
                written, coming = token == coming, None
                if written:
                    continue
            tokens, own = [*tokens, token], [*own, True]
            coming = self.result(tokens) if token == self.equals else None
        if coming is not None:
            tokens, own = [*tokens, coming], [*own, False]
        return Laid(tuple(tokens), tuple(own))

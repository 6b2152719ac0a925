"""A token that takes the last one back, and human answers with mistakes in them that are taken back at once."""

import random
from collections.abc import Sequence

from lrl_core.backspace import kept
from lrl_core.tokenizer import Tokenizer


class WithBackspace(Tokenizer):
    """A tokenizer with one more id behind its own, which never comes out of `encode`; `decode` does the deletions.

    Args:
        inner: The tokenizer of the words; the backspace is `len(inner)`.
    """

    def __init__(self, inner: Tokenizer) -> None:
        if inner.backspace is not None:
            raise ValueError(
                f"WithBackspace: got a {type(inner).__name__} whose id {inner.backspace} takes tokens back already; "
                "expected a tokenizer without a backspace. Use it as it is."
            )
        self.inner, self.backspace = inner, len(inner)
        self.pad, self.bos, self.eos = inner.pad, inner.bos, inner.eos

    def __len__(self) -> int:
        return len(self.inner) + 1

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode(kept(ids, self.backspace))

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return self.inner.never_drawn

    @property
    def words(self) -> tuple[int, ...]:
        """The ids that stand for text: no special ones."""
        special = {self.pad, self.bos, self.eos, self.backspace, *self.never_drawn}
        return tuple(i for i in range(len(self)) if i not in special)


def with_mistakes(
    line: Sequence[int], share: float, words: Sequence[int], backspace: int, chance: random.Random
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """A line in which some tokens come after a wrong one and the backspace that takes it back.

    The line gets longer by two for each (Cundy and Ermon 2023, arXiv 2306.05426).

    Args:
        line: The right tokens.
        share: Chance of a mistake before each of them.
        words: What mistakes are made of, at least two ids; a mistake is never the right one.
        backspace: What takes a mistake back.
        chance: Where it comes from.

    Returns:
        The longer line, and which of its tokens are to be learnt: all but the mistakes.
    """
    if len(words) < 2:
        raise ValueError(
            f"with_mistakes: got {len(words)} words to make mistakes of, expected at least 2: a mistake differs "
            "from the right token. Take a larger vocabulary, or set noise to 0."
        )
    tokens: list[int] = []
    learnt: list[bool] = []
    for right in line:
        if chance.random() < share:
            wrong = chance.choice(words)
            while wrong == right:
                wrong = chance.choice(words)
            tokens += [wrong, backspace]
            learnt += [False, True]
        tokens.append(right)
        learnt.append(True)
    return tuple(tokens), tuple(learnt)

"""Tokens that are no text: what a policy says to act (read on, hand over) beside the words of a tokenizer."""

from collections.abc import Sequence

from lrl_core.tokenizer import Tokenizer


class WithSymbols(Tokenizer):
    """A tokenizer with more ids behind its own, which never come out of `encode` and are left out by `decode`.

    Args:
        inner: The tokenizer of the words.
        symbols: Names of the further tokens; ids follow their order, the first one is `len(inner)`.
    """

    def __init__(self, inner: Tokenizer, symbols: Sequence[str]) -> None:
        self.inner, self.symbols = inner, tuple(symbols)
        self.pad, self.bos, self.eos = inner.pad, inner.bos, inner.eos

    def __len__(self) -> int:
        return len(self.inner) + len(self.symbols)

    def id(self, symbol: str) -> int:
        """The id of one of the symbols."""
        return len(self.inner) + self.symbols.index(symbol)

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode([i for i in ids if i < len(self.inner)])

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return self.inner.never_drawn

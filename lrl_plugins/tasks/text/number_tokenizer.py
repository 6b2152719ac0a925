"""The vocabulary of worked sums: one id per number, the signs, and the few words of an answer."""

import re
from collections.abc import Iterator, Sequence

from lrl_core.tokenizer import Tokenizer

_PIECE = re.compile(r"\d+|[a-z]+|[^\sa-z\d]")


class NumberTokenizer(Tokenizer):
    """One id per whole number from `-largest` to `largest`, one per sign and word; anything else is `<unk>`.

    A number is one token, its sign included, so that a calculator's reply is one token and a line has the same length
    whatever the results are. A minus is a sign where it touches the digits and no number stands before it, else an
    operator.

    Args:
        largest: The largest number in size.
    """

    pad, bos, eos, unk = range(4)
    SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
    SIGNS = ("+", "-", "=", ",", "?", ".", ":", "question", "answer", "the", "is")

    def __init__(self, largest: int = 99) -> None:
        self.largest = largest
        fixed = (*self.SPECIALS, *self.SIGNS)
        self.pieces = (*fixed, *map(str, range(-largest, largest + 1)))
        self._ids = {piece: i for i, piece in enumerate(self.pieces)}
        self._zero = len(fixed) + largest

    def __len__(self) -> int:
        return len(self.pieces)

    def id(self, piece: str) -> int:
        """The id of a sign or word."""
        return self._ids[piece]

    def number(self, token: int) -> int | None:
        """The number that a token stands for; None where it is none."""
        return token - self._zero if abs(token - self._zero) <= self.largest else None

    def of_number(self, number: int) -> int | None:
        """The token of a number; None where it is too large."""
        return self._zero + number if abs(number) <= self.largest else None

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(piece, self.unk) for piece in _pieces(text.lower())]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.pieces[i] for i in ids if i >= self.unk)

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return (self.pad, self.bos, self.unk)


def _pieces(text: str) -> Iterator[str]:
    """Numbers, words and signs of a text in order; numbers as Python writes them."""
    pending: re.Match[str] | None = None  # a minus that may be the sign of what follows
    after_number = False
    for match in _PIECE.finditer(text):
        piece = match.group()
        if pending is not None:
            signed = piece.isdecimal() and pending.end() == match.start()
            if not signed:
                yield "-"
            piece, pending = (f"-{piece}" if signed else piece), None
        if piece == "-" and not after_number:
            pending = match
            continue
        after_number = piece.lstrip("-").isdecimal()
        yield str(int(piece)) if after_number else piece
    if pending is not None:
        yield "-"

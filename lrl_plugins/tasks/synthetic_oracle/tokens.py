"""Sentences of numbers: the words of a language that nobody speaks."""

from collections.abc import Sequence

from lrl_core.tokenizer import Tokenizer


class NumberTokenizer(Tokenizer):
    """Token 17 is the word "17"; sentences have a fixed length and no end token.

    Every one of the words may be drawn, 0 included, so that begin token and padding stand behind them.

    Args:
        words: How many words there are.
    """

    eos = -1

    def __init__(self, words: int) -> None:
        self.words = words
        self.bos, self.pad = words, words + 1

    def __len__(self) -> int:
        return self.words + 2

    def encode(self, text: str) -> list[int]:
        ids = [int(word) if word.isdecimal() else -1 for word in text.split()]
        if not all(0 <= i < self.words for i in ids):
            raise ValueError(
                f"NumberTokenizer: got the text {text!r}, expected numbers from 0 to {self.words - 1} with spaces "
                "between them. Write the ids of the words."
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(i) for i in ids if 0 <= i < self.words)

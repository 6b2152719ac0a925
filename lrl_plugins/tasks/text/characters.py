"""A tokenizer whose tokens are single characters."""

from collections.abc import Iterable, Sequence

from lrl_core.tokenizer import Tokenizer


class CharacterTokenizer(Tokenizer):
    """One id per character, white space and case kept; other characters become `<unk>`, which decoders never draw.

    Args:
        texts: Every character that occurs in them is known.
    """

    pad, bos, eos, unk = range(4)
    SPECIALS = 4

    def __init__(self, texts: Iterable[str]) -> None:
        self.characters = sorted({character for text in texts for character in text})
        self._ids = {character: i for i, character in enumerate(self.characters, start=self.SPECIALS)}

    def __len__(self) -> int:
        return self.SPECIALS + len(self.characters)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(character, self.unk) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        known = (i for i in ids if i >= self.unk)
        return "".join("\N{REPLACEMENT CHARACTER}" if i == self.unk else self.characters[i - 4] for i in known)

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return (self.pad, self.bos, self.unk)

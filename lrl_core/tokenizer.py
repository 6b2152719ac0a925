"""Between text and token ids: what every task hands to the model, and a word-level tokenizer built from a corpus."""

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

_WORD = re.compile(r"\w+(?:[-'’]\w+)*", re.UNICODE)


def words(text: str) -> list[str]:
    """Lower-cased words without punctuation: what vocabularies are made of, and most metrics of texts.

    "dog's" is one word. What CIDEr and BLEU count as rewards, and the metrics of captions, are the words of
    `lrl_core.metrics.ptb.ptb_words`, where it is two.
    """
    return _WORD.findall(text.lower())


class Tokenizer(ABC):
    """Text to ids and back. Ids of special tokens never come out of `encode`, and `decode` leaves them out."""

    pad: int
    """Fills a line after its end; never drawn."""
    bos: int
    """Stands before the first token of a line; never drawn."""
    eos: int
    """Ends a line."""
    backspace: int | None = None
    """Takes the last token of the episode back; None where nothing can be taken back."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of ids, special ones included."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out."""

    @property
    def never_drawn(self) -> tuple[int, ...]:
        """Ids that no decoder may choose: padding and the begin token (unless one of them also ends a line)."""
        return tuple(sorted({self.pad, self.bos} - {self.eos}))


class WordTokenizer(Tokenizer):
    """One id per word; words outside the vocabulary become `<unk>`, which decoders never draw.

    Args:
        vocabulary: The words, without the special tokens; ids follow their order.
    """

    pad, bos, eos, unk = range(4)
    SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self.words = (*self.SPECIALS, *vocabulary)
        self._ids = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def from_texts(cls, texts: Iterable[str], min_count: int = 1, max_size: int | None = None) -> "WordTokenizer":
        """Every word that occurs at least `min_count` times, most frequent first, at most `max_size` of them."""
        counts = Counter(word for text in texts for word in words(text))
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([word for word in ordered if counts[word] >= min_count][:max_size])

    @classmethod
    def load(cls, path: str | Path) -> "WordTokenizer":
        """Read what `save` wrote."""
        return cls(json.loads(Path(path).read_text(encoding="utf-8"))["words"])

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON."""
        ordered = list(self.words[len(self.SPECIALS) :])
        Path(path).write_text(json.dumps({"words": ordered}, ensure_ascii=False, indent=0), encoding="utf-8")

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(word, self.unk) for word in words(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids if i >= len(self.SPECIALS) or i == self.unk)

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return (self.pad, self.bos, self.unk)

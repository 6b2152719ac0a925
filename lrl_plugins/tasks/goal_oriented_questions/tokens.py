"""The vocabulary of dialogues: words of questions, the question mark that ends a turn, and the oracle's answers."""

from collections.abc import Iterable, Sequence

from lrl_core.tokenizer import Tokenizer
from lrl_plugins.tasks.goal_oriented_questions.wording import END, pieces
from lrl_plugins.tasks.goal_oriented_questions.worlds import ANSWERS


class DialogueTokenizer(Tokenizer):
    """One id per word; the end token means that the questioner has no more questions.

    Args:
        texts: Questions and whatever else the vocabulary must hold; the order does not matter.
    """

    pad, bos, eos, unk = range(4)
    SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")

    def __init__(self, texts: Iterable[str]) -> None:
        fixed = (*self.SPECIALS, END, *ANSWERS)
        self.words = (*fixed, *sorted({word for text in texts for word in pieces(text)} - set(fixed)))
        self._ids = {word: i for i, word in enumerate(self.words)}
        self.turn_end = self._ids[END]
        """Id of the question mark."""
        self.answers = {answer: self._ids[answer] for answer in ANSWERS}
        """Ids of the oracle's words. A question may hold such a word too: who said it is not told from its id."""

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        return [self._ids[word] if self._ids.get(word, 0) > self.unk else self.unk for word in pieces(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids if i >= self.unk)

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return (self.pad, self.bos, self.unk)

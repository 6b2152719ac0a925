"""A byte-pair vocabulary trained on a task's own texts."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lrl_core.tokenizer import Tokenizer
from lrl_plugins.tasks.tokenizers import make_tokenizer


class BytePairTokenizer(Tokenizer):
    """Frequent pieces of words (Sennrich et al. 2016), punctuation and case kept; every digit is a token of its own.

    Args:
        texts: What the vocabulary is trained on.
        vocabulary: How many ids there are at most, special ones included; there are fewer where texts are few.
    """

    pad, bos, eos, unk = range(4)
    SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")

    def __init__(self, texts: Iterable[str], vocabulary: int) -> None:
        self.inner = _untrained()
        if vocabulary < 32:
            raise ValueError(
                f"BytePairTokenizer: got a vocabulary of {vocabulary} ids, expected at least 32 (2000, say). Raise "
                "`vocabulary`, or leave it out: the words of the training texts."
            )
        from tokenizers.trainers import BpeTrainer

        trainer = BpeTrainer(vocab_size=vocabulary, special_tokens=list(self.SPECIALS), show_progress=False)
        self.inner.train_from_iterator(texts, trainer)

    def __len__(self) -> int:
        return self.inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        # A text may spell a special token: only <unk>, which WikiText writes for a word, is left standing.
        return [i for i in self.inner.encode(text).ids if i >= self.unk]

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode(list(ids)).strip()

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return (self.pad, self.bos, self.unk)

    def save(self, folder: str | Path) -> None:
        """Write a folder that `tokenizer:` of a recipe reads."""
        from transformers import PreTrainedTokenizerFast

        pad, bos, eos, unk = self.SPECIALS
        PreTrainedTokenizerFast(
            tokenizer_object=self.inner, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=unk
        ).save_pretrained(str(folder))


def _untrained() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    # A word is the same token at the beginning of a text as within it; " 42" is " 4" and "2".
    inner.normalizer = normalizers.Prepend(" ")
    digits = pre_tokenizers.Split(Regex(r" ?\d"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    return inner


def text_tokenizer(name: str | None, vocabulary: int | None, texts: Iterable[str], min_count: int) -> Tokenizer:
    """The tokenizer that a text task's recipe asks for.

    Args:
        name: A folder with a transformers tokenizer, a .json written by WordTokenizer.save, or None.
        vocabulary: Ids of a byte-pair vocabulary trained on the texts; None = words. Only where no name is given.
        texts: What a vocabulary is built from where none is given.
        min_count: Words that occur less often become `<unk>`; only where a vocabulary of words is built.
    """
    if name is not None or vocabulary is None:
        return make_tokenizer(name, texts, min_count)
    return BytePairTokenizer(texts, vocabulary)

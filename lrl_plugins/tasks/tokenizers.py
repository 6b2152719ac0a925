"""Tokenizers by name: none, a saved word list, or a pretrained one from a folder."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lrl_core.tokenizer import Tokenizer, WordTokenizer


class PretrainedTokenizer(Tokenizer):
    """A transformers tokenizer from a folder, under the names that lrl knows.

    A missing begin token is replaced by CLS or the end token, a missing end token by SEP, missing padding by the end
    token: masks never come from token ids, so padding may share one.

    Args:
        folder: Folder with the tokenizer's files.
    """

    def __init__(self, folder: str | Path) -> None:
        from transformers import AutoTokenizer

        try:
            self.inner = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"PretrainedTokenizer: got {folder}, which transformers cannot read ({reason}), expected a folder with "
                "a tokenizer's files (tokenizer.json, tokenizer_config.json). Save one there with save_pretrained."
            ) from error
        inner = self.inner
        self.eos = self._first(inner.eos_token_id, inner.sep_token_id)
        self.bos = self._first(inner.bos_token_id, inner.cls_token_id, self.eos)
        self.pad = self._first(inner.pad_token_id, self.eos)
        # an unknown-token id may come out of `encode`: it stands for a word, however special transformers calls it
        self._special = frozenset(inner.all_special_ids) - {inner.unk_token_id}

    def _first(self, *ids: int | None) -> int:
        for i in ids:
            if i is not None:
                return i
        raise ValueError(
            f"PretrainedTokenizer: got {self.inner.name_or_path}, which has neither an end token nor a separator, "
            "expected one of them, as answers must end. Set eos_token in its tokenizer_config.json."
        )

    def __len__(self) -> int:
        return len(self.inner)

    def encode(self, text: str) -> list[int]:
        return [i for i in self.inner.encode(text, add_special_tokens=False) if i not in self._special]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.inner.decode(list(ids), skip_special_tokens=True)).strip()

    @property
    def never_drawn(self) -> tuple[int, ...]:
        inner = self.inner
        names = (inner.pad_token_id, inner.bos_token_id, inner.cls_token_id, inner.sep_token_id, inner.mask_token_id)
        ids = {self.pad, self.bos, inner.unk_token_id, *names} - {None, self.eos}
        return tuple(sorted(ids))


def make_tokenizer(name: str | None, texts: Iterable[str], min_count: int = 1) -> Tokenizer:
    """The tokenizer that a recipe asks for.

    Args:
        name: A folder with a transformers tokenizer, a .json that `WordTokenizer.save` wrote, or None: words of texts.
        texts: What a vocabulary is built from where none is given.
        min_count: Words that occur less often become `<unk>`; only where a vocabulary is built.
    """
    if name is None:
        return WordTokenizer.from_texts(texts, min_count=min_count)
    if Path(name).is_dir():
        return PretrainedTokenizer(name)
    try:
        return WordTokenizer.load(name)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"tokenizer: got {name!r}, which cannot be read ({type(error).__name__}: {error}), expected a folder with "
            "a transformers tokenizer or a .json written by WordTokenizer.save. Correct the path (relative ones start "
            f"at {Path.cwd()}), or leave it out to build a vocabulary from the training texts."
        ) from error

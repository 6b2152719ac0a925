"""Transformers models that read texts and are trained here: by name or by config entries, and lines of ids for them.

Shared by plugins of several kinds (a reward that learns, an encoder's warm-up), which may not import each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from lrl_core.masks import length_mask
from lrl_core.tokenizer import Tokenizer, WordTokenizer

Entries = dict[str, Any]
"""Entries of a transformers config, as written in a recipe."""

SMALL: Entries = {
    "model_type": "bert", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 256,
}  # fmt: skip
"""What is built where a recipe names no model."""

_UNLIMITED = 10**6
"""Tokenizers that know no limit write a number beyond this one."""


class FolderTokenizer(Tokenizer):
    """A transformers tokenizer under the names that lrl knows; CLS begins and SEP ends where nothing else does.

    Args:
        who: Name of the plugin, for errors.
        name: Folder or hub name.
    """

    def __init__(self, who: str, name: str) -> None:
        try:
            self.inner = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise OSError(_unreadable(who, name, "tokenizer", error)) from error
        inner = self.inner
        ends = [token for token in (inner.eos_token_id, inner.sep_token_id) if token is not None]
        if not ends:
            raise ValueError(
                f"{who}: got the tokenizer {name!r} without an end token or separator; expected one of them, for a "
                "line must end. Set eos_token in its tokenizer_config.json."
            )
        begins = [token for token in (inner.cls_token_id, inner.bos_token_id) if token is not None]
        self.eos = ends[0] if inner.cls_token_id is None else (inner.sep_token_id or ends[0])
        self.bos = (begins or ends)[0]
        self.pad = self.eos if inner.pad_token_id is None else inner.pad_token_id
        self.mask: int | None = inner.mask_token_id
        self._special = frozenset(inner.all_special_ids) - {inner.unk_token_id}

    def __len__(self) -> int:
        return len(self.inner)

    def encode(self, text: str) -> list[int]:
        # verbose: it would warn of long texts, which LineMaker cuts
        return [i for i in self.inner.encode(text, add_special_tokens=False, verbose=False) if i not in self._special]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.inner.decode(list(ids), skip_special_tokens=True)).strip()

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return tuple(sorted({self.pad, self.bos, *self.inner.all_special_ids} - {self.eos}))


def tokenizer_of(who: str, model: str | Entries, tokenizer: str | None, task: Tokenizer) -> Tokenizer:
    """What a model reads texts with: the one named, else the model folder's own, else the task's.

    Args:
        who: Name of the plugin, for errors.
        model: Folder, hub name or config entries.
        tokenizer: A folder or hub name, or a .json written by WordTokenizer.save; None: see above.
        task: The task's tokenizer.
    """
    if tokenizer is None:
        own = isinstance(model, str) and (not Path(model).is_dir() or any(Path(model).glob("tokenizer*")))
        return FolderTokenizer(who, str(model)) if own else task
    if not tokenizer.endswith(".json"):
        return FolderTokenizer(who, tokenizer)
    try:
        return WordTokenizer.load(tokenizer)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{who}: got the tokenizer {tokenizer!r}, which cannot be read ({type(error).__name__}: {error}); expected "
            "a .json written by WordTokenizer.save, or a folder with a transformers tokenizer. Correct the path."
        ) from error


def load_trunk(who: str, model: str | Entries, tokenizer: Tokenizer) -> PreTrainedModel:
    """The model without any head, in float32: pretrained by name, drawn afresh from entries.

    Of an encoder-decoder the encoder is taken. Fresh models take vocabulary and special tokens from the tokenizer, and
    fresh encoders have one id more, a mask, where it has none.

    Args:
        who: Name of the plugin, for errors.
        model: Folder, hub name or config entries.
        tokenizer: What the texts will be read with.
    """
    if isinstance(model, str):
        try:
            built = AutoModel.from_pretrained(model, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise OSError(_unreadable(who, model, "model", error)) from error
    else:
        built = AutoModel.from_config(_fresh(who, model, tokenizer), dtype=torch.float32)
    if built.config.vocab_size < len(tokenizer):
        raise ValueError(
            f"{who}: got a model of {built.config.vocab_size} ids and a tokenizer of {len(tokenizer)}; expected a "
            "tokenizer whose ids the model knows. Name the model's own tokenizer."
        )
    trunk = built.get_encoder() if built.config.is_encoder_decoder else built
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None  # nobody reads it, and it would never get a gradient
    trunk.config.use_cache = False
    return trunk


def is_causal(config: Any) -> bool:
    """Whether a model of this config sees only what stands before each token."""
    kind = config.model_type
    decoder = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return not config.is_encoder_decoder and (decoder or bool(getattr(config, "is_decoder", False)))


def mask_id(tokenizer: Tokenizer) -> int:
    """The id that hides a word: the tokenizer's own, or the first one that it does not use."""
    own = tokenizer.mask if isinstance(tokenizer, FolderTokenizer) else None
    return len(tokenizer) if own is None else own


@dataclass(frozen=True)
class Line:
    """One text as ids, special tokens included."""

    ids: list[int]
    """What the model reads."""
    words: list[bool]
    """False where a special token stands."""


class LineMaker:
    """Makes lines of prompts and texts: begin, prompt, separator, text, end.

    Args:
        who: Name of the plugin, for errors.
        trunk: Who reads the lines.
        tokenizer: Makes ids of texts.
        separator: Stands between prompt and text; None: an end token in encoders, nothing in decoders.
        max_length: Longest line in tokens, special ones counted; None takes the model's own limit.
    """

    def __init__(
        self, who: str, trunk: PreTrainedModel, tokenizer: Tokenizer, separator: str | None, max_length: int | None
    ) -> None:
        self.tokenizer = tokenizer
        self.pad = max(0, tokenizer.pad)
        between = [] if is_causal(trunk.config) else [tokenizer.eos]
        self.between = between if separator is None else tokenizer.encode(separator)
        limit = _limit(trunk, tokenizer)
        if max_length is not None and not (3 <= max_length <= (limit or max_length)):
            raise ValueError(
                f"{who}: max_length is {max_length}; expected 3 to {limit or 'any number of'} tokens, as many as the "
                "model reads. Change it, or leave it out."
            )
        self.limit = max_length or limit

    def line(self, prompt: str | None, text: str) -> Line:
        """A line; one that is too long loses its beginning: that of the prompt, then that of the text.

        Args:
            prompt: What stands before the text; None for nothing, not even a separator.
            text: What is judged or learnt.
        """
        asked = [] if prompt is None else self.tokenizer.encode(prompt)
        between = [] if prompt is None else self.between
        said = self.tokenizer.encode(text)
        ids = [*asked, *between, *said]
        words = [True] * len(asked) + [False] * len(between) + [True] * len(said)
        kept = len(ids) if self.limit is None else min(len(ids), self.limit - 2)
        first = len(ids) - kept
        return Line(
            [self.tokenizer.bos, *ids[first:], self.tokenizer.eos],
            [False, *words[first:], False],
        )

    def tensors(
        self, lines: Sequence[Line], device: torch.device
    ) -> tuple[Int[Tensor, "N L"], Bool[Tensor, "N L"], Bool[Tensor, "N L"]]:
        """Ids padded on the right, which of them are real, and which are words."""
        lengths = torch.tensor([len(line.ids) for line in lines], device=device)
        longest = int(lengths.max())
        fill = [longest - len(line.ids) for line in lines]
        ids = [line.ids + [self.pad] * rest for line, rest in zip(lines, fill, strict=True)]
        words = [line.words + [False] * rest for line, rest in zip(lines, fill, strict=True)]
        return torch.tensor(ids, device=device), length_mask(lengths, longest), torch.tensor(words, device=device)


def _fresh(who: str, entries: Entries, tokenizer: Tokenizer) -> Any:
    if "model_type" not in entries:
        raise ValueError(
            f"{who}: model is {entries}; expected a model_type among its entries, or a folder. Write for example "
            "model: {model_type: bert, num_hidden_layers: 2}."
        )
    ids = {"pad_token_id": tokenizer.pad, "bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    given = {name: token for name, token in ids.items() if token >= 0} | entries
    kind: Any = given.pop("model_type")  # a string, but the library's own annotation is another
    masked = is_causal(AutoConfig.for_model(kind, **given))
    size = len(tokenizer) if masked else max(len(tokenizer), mask_id(tokenizer) + 1)
    return AutoConfig.for_model(kind, **{"vocab_size": size, **given})


def _limit(trunk: PreTrainedModel, tokenizer: Tokenizer) -> int | None:
    positions = getattr(trunk.config, "max_position_embeddings", None)
    for table in trunk.modules():
        # RoBERTa and its kin count positions from behind the padding id.
        if isinstance(table, nn.Embedding) and table.num_embeddings == positions and table.padding_idx is not None:
            positions -= table.padding_idx + 1
            break
    own = tokenizer.inner.model_max_length if isinstance(tokenizer, FolderTokenizer) else None
    return min((n for n in (positions, own) if n is not None and 0 < n < _UNLIMITED), default=None)


def _unreadable(who: str, name: str, what: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"{who}: got the {what} {name!r}, which cannot be loaded ({reason}); expected a folder written by "
        "save_pretrained, or a hub name. Correct the path."
    )

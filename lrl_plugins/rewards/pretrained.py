"""Frozen transformers models with tokenizers of their own, for rewards that read texts and never the policy's ids."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from lrl_core.frozen import Frozen

Row = dict[str, list[int]]
"""One text as the model's inputs: input_ids, attention_mask and, for some models, token_type_ids."""
Item = TypeVar("Item")

MOST_TOKENS = 8192
"""Tokens of a batch, padding counted, so that long texts do not take all memory."""
_SPARE, _SPARE_ON_DEVICES = 64, 4096
"""Tokens of padding that take about as long as one more batch: on a CPU, which reads the model's weights once more, and
on devices that are fast at everything but starting."""
_UNLIMITED = 10**6
"""Tokenizers that know no limit write a number beyond this one."""
_POSITIONS_AFTER_PADDING = {
    "camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Models that begin to count positions after the padding id, so that not all of their positions can be used."""
_BYTE_PAIRS = {"gpt2", "roberta"}
"""Models whose first word is another token than the same word further on, unless a space stands before it."""


def load_config(who: str, name: str) -> Any:
    """The model's config, or an error that says who wanted it.

    Args:
        who: Name of the reward.
        name: Folder or hub name.
    """
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise OSError(_unreadable(who, name, "model", error)) from error


def load_model(who: str, auto: Any, name: str, config: Any) -> PreTrainedModel:
    """The model in float32, with every weight found in its files.

    Args:
        who: Name of the reward.
        auto: AutoModel or one of its kin.
        name: Folder or hub name.
        config: Its config, perhaps with fewer layers than are stored.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # layers left out on purpose would fill the screen
    try:
        model, info = auto.from_pretrained(name, config=config, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise OSError(_unreadable(who, name, "model", error)) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ValueError(
            f"{who}: got the model {name!r} without the weights {', '.join(missing[:3])}"
            f"{' and others' if len(missing) > 3 else ''}; expected every weight of a {type(model).__name__}, for "
            "drawn ones would judge at random. Name a model that was trained for this use."
        )
    return model


class TextReader:
    """Turns texts into batches of inputs, each row cut at the model's limit.

    Args:
        who: Name of the reward.
        name: Folder or hub name of model and tokenizer.
        config: The model's config.
        max_length: Longest row in tokens, special ones counted; None takes the model's own limit.
        keep_end: Cut long rows at their beginning instead of their end.
        leading_space: Whether models that tell a text's first word from the others read it as one of the others.
    """

    def __init__(
        self,
        who: str,
        name: str,
        config: Any,
        max_length: int | None = None,
        keep_end: bool = False,
        leading_space: bool = False,
    ) -> None:
        try:
            loaded = AutoTokenizer.from_pretrained(name, truncation_side="left" if keep_end else "right")
        except (OSError, ValueError) as error:
            raise OSError(_unreadable(who, name, "tokenizer", error)) from error
        self.tokenizer: PreTrainedTokenizerBase = loaded
        self.limit = checked_limit(who, _model_limit(config, loaded), max_length)
        self.lead = " " if leading_space and config.model_type in _BYTE_PAIRS else ""
        # The config's goes first: some models look for the last token that is not this one.
        known = (getattr(config, "pad_token_id", None), loaded.pad_token_id, loaded.eos_token_id)
        self.pad = next((token for token in known if token is not None), 0)

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None, special: bool = True) -> list[Row]:
        """One row of inputs per text; several forwards may share them.

        Args:
            texts: The texts.
            pairs: Second texts, for models that read two; None where there are none.
            special: Whether the tokenizer's special tokens are added.
        """
        if not texts:
            return []
        read = self.tokenizer(
            [self.lead + text if text else text for text in texts],
            None if pairs is None else list(pairs),
            add_special_tokens=special,
            truncation=self.limit is not None,
            max_length=self.limit,
        )
        return [{name: list(values[i]) for name, values in read.items()} for i in range(len(texts))]

    def batch(self, rows: Sequence[Row], device: torch.device) -> dict[str, Tensor]:
        """The rows as tensors, padded on the right."""
        fills = {name: self.pad if name == "input_ids" else 0 for name in rows[0]}
        return {
            name: torch.tensor(padded([row[name] for row in rows], fill), device=device) for name, fill in fills.items()
        }


def padded(rows: Sequence[list[Item]], fill: Item) -> list[list[Item]]:
    """The rows, all as long as the longest.

    Args:
        rows: Lists of numbers.
        fill: What is appended.
    """
    longest = max(map(len, rows))
    return [row + [fill] * (longest - len(row)) for row in rows]


def by_length(
    items: Sequence[Item],
    length: Callable[[Item], int],
    size: int,
    equal: bool = False,
    spare: int = _SPARE,
    tokens: int = MOST_TOKENS,
) -> Iterator[tuple[list[int], list[Item]]]:
    """Batches of items of like length, each with the places of its items; items of length 0 are left out.

    From the shortest on, a batch is cut where its padding would cost more than a batch of its own.

    Args:
        items: What to batch.
        length: How long an item is.
        size: Most items of a batch.
        equal: Whether all items of a batch have the same length, for models that know no padding.
        spare: Most padding of a batch, in the unit of length.
        tokens: Most items times longest length of a batch; an item that is longer is read alone.
    """
    lengths = [length(item) for item in items]
    places: list[int] = []
    padding = 0
    for i in sorted((i for i in range(len(items)) if lengths[i] > 0), key=lengths.__getitem__):
        more = len(places) * (lengths[i] - lengths[places[-1]]) if places else 0
        over = padding + more > (0 if equal else spare) or (len(places) + 1) * lengths[i] > tokens
        if places and (over or len(places) == size):
            yield places, [items[place] for place in places]
            places, padding, more = [], 0, 0
        places.append(i)
        padding += more
    if places:
        yield places, [items[place] for place in places]


def buckets(
    rows: Sequence[Row], size: int, device: torch.device, equal: bool = False
) -> Iterator[tuple[list[int], list[Row]]]:
    """Batches of inputs of like length, each with the places of its rows; rows without tokens are left out."""
    return by_length(rows, lambda row: len(row["input_ids"]), size, equal, spare_padding(device))


def spare_padding(device: torch.device) -> int:
    """How many tokens of padding take about as long as one more batch."""
    return _SPARE if device.type == "cpu" else _SPARE_ON_DEVICES


def device_of(model: Frozen) -> torch.device:
    """Where a frozen model computes."""
    return next(model.module.parameters()).device


def check_batch_size(who: str, batch_size: int) -> None:
    """Refuse a batch without rows."""
    if batch_size < 1:
        raise ValueError(f"{who}: batch_size is {batch_size}; expected at least 1. Correct the recipe.")


def unbound(who: str) -> RuntimeError:
    """What to raise where a reward is asked before it has loaded its model."""
    return RuntimeError(
        f"{who} has nothing to judge with yet; expected bind(facts) before score(). The trainer binds every component; "
        "in a script, call bind yourself."
    )


def checked_limit(who: str, limit: int | None, wanted: int | None) -> int | None:
    """The longest row: what is wanted, if the model can read it.

    Args:
        who: Name of the reward.
        limit: The model's own; None where it has none.
        wanted: What the recipe says; None takes the model's.
    """
    if wanted is None:
        return limit
    if wanted < 1 or (limit is not None and wanted > limit):
        most = "any number of" if limit is None else f"1 to {limit}"
        raise ValueError(
            f"{who}: max_length is {wanted}; expected {most} tokens, as many as the model reads. Change it, or leave "
            "it out."
        )
    return wanted


def _model_limit(config: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in _POSITIONS_AFTER_PADDING:
        positions -= (getattr(config, "pad_token_id", None) or 0) + 1
    known = (tokenizer.model_max_length, positions)
    return min((n for n in known if n is not None and 0 < n < _UNLIMITED), default=None)


def _unreadable(who: str, name: str, what: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"{who}: got the {what} {name!r}, which cannot be loaded ({reason}); expected a folder written by "
        f"save_pretrained, with model and tokenizer, or a hub name. Correct the path."
    )

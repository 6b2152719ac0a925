"""Transformers models by path or by config entries, with the tokenizer's special tokens filled in."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.activations import NewGELUActivation

from lrl_core.tokenizer import Tokenizer

Entries = dict[str, Any]
"""Entries of a transformers config, as written in a recipe."""


Source = tuple[str | None, Entries | None]
"""The path and the config entries of a model."""


def source_of(given: Entries | str | None) -> Source:
    """The path and the config entries that one argument means."""
    return (given, None) if isinstance(given, str) else (None, given)


def check_source(who: str, path: str | None, config: Entries | None) -> None:
    """Refuse a model that is neither named nor described."""
    if path is None and not (config and "model_type" in config):
        raise ValueError(
            f"{who}: got path={path!r} and config={config!r}; expected a model's folder or hub name in path, or a "
            "config with a model_type. Write for example config: {model_type: gpt2, n_layer: 2}."
        )


def load(auto: Any, path: str | None, config: Entries | None, defaults: Entries, extra: Entries) -> PreTrainedModel:
    """A model in float32: pretrained with `path`, freshly drawn without.

    Args:
        auto: AutoModel or one of its kin.
        path: Folder or hub name; None draws fresh weights.
        config: Entries that override the stored config, or make the whole config; without `path` names a model_type.
        defaults: Entries of a freshly made config unless `config` says otherwise.
        extra: Entries in any case, such as add_cross_attention.
    """
    entries = dict(config or {})
    if path is not None:
        entries.pop("model_type", None)
        settings = AutoConfig.from_pretrained(path, **entries, **extra)
        return _fused(auto.from_pretrained(path, config=settings, dtype=torch.float32))
    settings = AutoConfig.for_model(entries.pop("model_type"), **{**defaults, **entries, **extra})
    return _fused(auto.from_config(settings, dtype=torch.float32))


def _fused(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with one kernel for what GPT-2's activation does in eight steps that all keep their results."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def special_tokens(tokenizer: Tokenizer) -> Entries:
    """What a fresh model must know of the tokenizer."""
    ids = {"pad_token_id": tokenizer.pad, "bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    return {"vocab_size": len(tokenizer), **{name: token for name, token in ids.items() if token >= 0}}


def end_token(tokenizer: Tokenizer) -> int | None:
    """The id that ends an episode; None where the tokenizer has none."""
    return tokenizer.eos if tokenizer.eos >= 0 else None


def begin_token(tokenizer: Tokenizer, who: str) -> int:
    """The id that stands before the first token."""
    if not 0 <= tokenizer.bos < len(tokenizer):
        raise ValueError(
            f"{who}: {type(tokenizer).__name__}.bos is {tokenizer.bos}; expected an id from 0 to {len(tokenizer) - 1}, "
            "because an episode needs a token to begin with. Give the tokenizer a begin token."
        )
    return tokenizer.bos


def tiny_input(tokenizer: Tokenizer) -> Int[Tensor, "1 3"]:
    """Three ordinary ids, to try a model on."""
    ordinary = [i for i in range(min(len(tokenizer), 16)) if i not in (tokenizer.pad, tokenizer.backspace)]
    return torch.tensor([(ordinary * 3)[-3:]])

"""The output matrix of a transformers model, and the proof that it is all there is behind the hidden states."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from lrl_core.vocab import Head


def output_head(model: PreTrainedModel, vocabulary: int) -> Head:
    """Matrix and bias of a model's first `vocabulary` logits; ids that only pad the matrix are left out.

    Marian and BART keep their bias in a buffer, `final_logits_bias`.
    """
    layer = model.get_output_embeddings()
    biases = (layer._parameters.get("bias"), model._buffers.get("final_logits_bias"))
    known = [bias.reshape(-1)[:vocabulary] for bias in biases if bias is not None]
    weight = layer.weight
    return Head(
        weight if len(weight) == vocabulary else weight[:vocabulary], torch.stack(known).sum(0) if known else None
    )


def fit_vocabulary(model: PreTrainedModel, vocabulary: int, who: str) -> None:
    """Make room for every token id; a matrix that is larger already stays as it is."""
    layer = model.get_output_embeddings()
    if layer is None or not isinstance(layer, nn.Linear | nn.Embedding):
        raise ValueError(
            f"{who}: {type(model).__name__} has no output matrix; expected a language model with one. "
            "Choose another model_type or path."
        )
    if _known_ids(model) < vocabulary:
        model.resize_token_embeddings(vocabulary)
    if _known_ids(model) < vocabulary:
        raise ValueError(
            f"{who}: {type(model).__name__} knows {_known_ids(model)} token ids; expected {vocabulary}, the "
            "tokenizer's. Use the tokenizer that the model was trained with."
        )


def _known_ids(model: PreTrainedModel) -> int:
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    return min(len(layer.weight) for layer in layers)


@torch.no_grad()
def hidden_scale(
    model: PreTrainedModel, reader: nn.Module, example: dict[str, Any], vocabulary: int, who: str
) -> float:
    """By how much hidden states are multiplied before the output matrix (T5, Cohere, Granite); 1 for most models.

    Compares the model's own logits with the head's on a tiny input, and refuses a model that does more than that.

    Args:
        model: In eval mode.
        reader: The part whose output is the hidden states.
        example: Arguments of one tiny call of `model`.
        vocabulary: Number of logits that are compared.
        who: The policy, for the error.
    """
    seen: list[Tensor] = []
    hook = reader.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    try:
        logits = model(**example, use_cache=False).logits[..., :vocabulary]
    finally:
        hook.remove()
    head = output_head(model, vocabulary)
    if _entry(model.config, "final_logit_softcapping") is None and seen and seen[-1].shape[-1] == head.weight.shape[1]:
        for scale in _known_scales(model.config, seen[-1].shape[-1]):
            if _agree(head.logits(seen[-1][0] * scale), logits[0]):
                return scale
    raise ValueError(
        f"{who}: the logits of {type(model).__name__} are not its hidden states times its output matrix (it caps or "
        "transforms them); expected a plain output matrix, because the loss works on the hidden states. "
        "Choose another model, or switch the capping off in config (final_logit_softcapping: null)."
    )


def _agree(ours: Float[Tensor, "N V"], theirs: Float[Tensor, "N V"]) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


def _known_scales(config: PretrainedConfig, width: int) -> list[float]:
    named = [_entry(config, name) for name in ("logit_scale", "logits_scaling")]
    numbers = [float(number) for number in named if number]
    return [1.0, *numbers, *[1 / number for number in numbers], width**-0.5]


def _entry(config: PretrainedConfig, name: str) -> Any:
    return getattr(config.get_text_config(decoder=True), name, None)

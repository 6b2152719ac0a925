"""One more token through a transformers decoder without its modules: at few rows those cost as much as the arithmetic.

The weights are read anew for every batch of episodes. Only plain decoders of known shape are read this
way, and only after the numbers were compared with those of the modules; everything else goes through the modules.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, EncoderDecoderCache, GPT2Model, PreTrainedModel
from transformers.models.marian.modeling_marian import MarianDecoder
from transformers.pytorch_utils import Conv1D

Step = Callable[[Tensor, Tensor | int, Tensor | None, Cache, Tensor | None], Tensor]
"""From tokens [b], their positions, masks of self- and cross-attention, and a cache to hidden states [b D]."""

_attention = nn.functional.scaled_dot_product_attention
_norm = nn.functional.layer_norm


class Affine(NamedTuple):
    """x @ weight + bias, with the matrix the way round that few rows like: a processor then reads it once."""

    weight: Float[Tensor, "I O"]
    bias: Float[Tensor, " O"]

    @classmethod
    def of(cls, *modules: nn.Module) -> "Affine":
        """Linear layers side by side, or one Conv1D; TypeError for anything else, a LoRA layer for one."""
        first = modules[0]
        if type(first) is Conv1D:
            return cls(first.weight, first.bias)
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for module in modules:
            weights.append(_linear(module).weight)
            biases.append(_linear(module).bias)
        return cls(torch.cat(weights).t().contiguous(), torch.cat(biases))

    def __call__(self, x: Float[Tensor, "b I"]) -> Float[Tensor, "b O"]:
        return torch.addmm(self.bias, x, self.weight)


class Apart(NamedTuple):
    """The same where each matrix stays where the optimiser changes it: compiled kernels know it by its address."""

    parts: tuple[tuple[Float[Tensor, "O I"], Float[Tensor, " O"]], ...]

    @classmethod
    def of(cls, *modules: nn.Module) -> "Affine | Apart":
        """Linear layers side by side, or one Conv1D; TypeError for anything else, a LoRA layer for one."""
        if type(modules[0]) is Conv1D:
            return Affine.of(modules[0])
        return cls(tuple((_linear(module).weight, _linear(module).bias) for module in modules))

    def __call__(self, x: Float[Tensor, "b I"]) -> Float[Tensor, "b O"]:
        return torch.cat([nn.functional.linear(x, weight, bias) for weight, bias in self.parts], 1)


MakeAffine = Callable[..., Affine | Apart]
"""From linear layers that stand side by side to one that gives all their outputs."""


class Norm(NamedTuple):
    """A layer norm."""

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, module: Any) -> "Norm":
        """The weights of a plain LayerNorm; TypeError for anything else."""
        if type(module) is not nn.LayerNorm:
            raise TypeError(f"{type(module).__name__} is no layer norm")
        return cls(module.weight, module.bias, module.eps)

    def __call__(self, x: Float[Tensor, "b D"]) -> Float[Tensor, "b D"]:
        return _norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def _linear(module: nn.Module) -> nn.Linear:
    if not (type(module) is nn.Linear and module.bias is not None):
        raise TypeError(f"{type(module).__name__} is no plain affine layer")
    return module


def _table(module: nn.Module) -> Float[Tensor, "N D"]:
    if type(module) is not nn.Embedding:
        raise TypeError(f"{type(module).__name__} is no plain embedding")
    return module.weight


def _look_back(
    projected: Float[Tensor, "b E"], heads: int, mask: Bool[Tensor, "b 1 1 L"] | None, cache: Cache, layer: int
) -> Float[Tensor, "b D"]:
    """Self-attention of one more token per row, from its query, key and value side by side; the cache grows by it."""
    query, key, value = projected.view(len(projected), 3, heads, -1, 1).transpose(3, 4).unbind(1)
    keys, values = cache.update(key, value, layer)
    return _attention(query, keys, values, attn_mask=mask).flatten(1)


class GPT2Steps:
    """GPT-2: norms before attention and before the two-layer network (Radford 2019).

    Args:
        part: The decoder, as transformers makes it.
    """

    def __init__(self, part: Any) -> None:
        config = part.config
        if config.add_cross_attention or not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
            raise TypeError("another attention than GPT-2's")
        self.heads, self.words, self.places = config.n_head, _table(part.wte), _table(part.wpe)
        self.blocks = [
            (
                Norm.of(block.ln_1), Affine.of(block.attn.c_attn), Affine.of(block.attn.c_proj),
                Norm.of(block.ln_2), Affine.of(block.mlp.c_fc), block.mlp.act, Affine.of(block.mlp.c_proj),
            )
            for block in part.h
        ]  # fmt: skip
        self.last = Norm.of(part.ln_f)

    def __call__(
        self,
        tokens: Int[Tensor, " b"],
        positions: Int[Tensor, " b"] | int,
        mask: Bool[Tensor, "b 1 1 L"] | None,
        cache: Cache,
        cross_mask: Tensor | None = None,
    ) -> Float[Tensor, "b D"]:
        """The hidden states of one more token per row."""
        x = self.words[tokens] + self.places[positions]
        for layer, (before, into, out, between, wide, act, narrow) in enumerate(self.blocks):
            x = x + out(_look_back(into(before(x)), self.heads, mask, cache, layer))
            x = x + narrow(act(wide(between(x))))
        return self.last(x)


class MarianSteps:
    """Marian: norms behind self-attention, cross-attention and the two-layer network (Junczys-Dowmunt 2018).

    Args:
        part: The decoder, as transformers makes it.
        affine: How its matrices are held.
    """

    def __init__(self, part: Any, affine: MakeAffine) -> None:
        self.heads, self.scale = part.layers[0].self_attn.num_heads, part.embed_scale
        self.words, self.places = _table(part.embed_tokens), part.embed_positions.weight
        self.blocks = []
        for block in part.layers:
            own, other = block.self_attn, block.encoder_attn
            self.blocks.append((
                affine(own.q_proj, own.k_proj, own.v_proj), affine(own.out_proj),
                Norm.of(block.self_attn_layer_norm), affine(other.q_proj), affine(other.out_proj),
                Norm.of(block.encoder_attn_layer_norm), affine(block.fc1), block.activation_fn,
                affine(block.fc2), Norm.of(block.final_layer_norm),
            ))  # fmt: skip

    def __call__(
        self,
        tokens: Int[Tensor, " b"],
        positions: Int[Tensor, " b"] | int,
        mask: Bool[Tensor, "b 1 1 L"] | None,
        cache: Cache,
        cross_mask: Bool[Tensor, "b 1 1 S"] | None = None,
    ) -> Float[Tensor, "b D"]:
        """The hidden states of one more token per row; the source's keys and values stand in the cache."""
        assert isinstance(cache, EncoderDecoderCache)
        shape = (len(tokens), self.heads, 1, -1)
        x = self.words[tokens] * self.scale + self.places[positions]
        for layer, (into, out, norm, ask, answer, norm2, wide, act, narrow, norm3) in enumerate(self.blocks):
            x = norm(x + out(_look_back(into(x), self.heads, mask, cache.self_attention_cache, layer)))
            source: Any = cache.cross_attention_cache.layers[layer]
            seen = _attention(ask(x).view(shape), source.keys, source.values, attn_mask=cross_mask)
            x = norm2(x + answer(seen.reshape(x.shape)))
            x = norm3(x + narrow(act(wide(x))))
        return x


class ModuleSteps:
    """The modules themselves, told where a token stands and what it may look at: for compiled kernels alone.

    Args:
        part: A decoder without cross-attention; TypeError where it takes no positions.
    """

    def __init__(self, part: PreTrainedModel) -> None:
        if "position_ids" not in inspect.signature(part.forward).parameters:
            raise TypeError(f"{type(part).__name__} is not told where a token stands")
        self.part = part

    def __call__(
        self,
        tokens: Int[Tensor, " b"],
        positions: Int[Tensor, " b"] | int,
        mask: Bool[Tensor, "b 1 1 L"] | None,
        cache: Cache,
        cross_mask: Tensor | None = None,
    ) -> Float[Tensor, "b D"]:
        """The hidden states of one more token per row."""
        if isinstance(positions, int):
            positions = torch.full_like(tokens, positions)
        return self.part(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, 0]


def steps_of(part: PreTrainedModel, affine: MakeAffine = Affine.of) -> Step | None:
    """A way around the modules of a decoder; None where it is not one of those known here, or was changed.

    Args:
        part: The decoder.
        affine: How its matrices are held.
    """
    if not is_whole(part):
        return None  # only the modules know how to put it together
    try:
        if type(part) is GPT2Model:
            return GPT2Steps(part)
        return MarianSteps(part, affine) if type(part) is MarianDecoder else None
    except TypeError:
        return None


def is_whole(part: nn.Module) -> bool:
    """Whether all weights are here, not cut up over ranks."""
    return all(type(parameter) is nn.Parameter and parameter.numel() for parameter in part.parameters())

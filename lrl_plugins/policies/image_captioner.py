"""Captions pictures: a vision encoder or given region features under a language model with cross-attention."""

import inspect
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.policies.layout import Prefix, begin_with, spread, trimmed_mask
from lrl_plugins.policies.loading import Entries, begin_token, check_source, end_token, load, special_tokens, tiny_input
from lrl_plugins.policies.reader import Reader, built
from lrl_plugins.policies.transformers_state import CacheState, Context


class ImageCaptioner(Policy):
    """A causal language model that looks at a picture by cross-attention.

    With an encoder it reads features["pixels"] [B, 3, H, W]; without one, features["regions"] [B, R, D] (object
    regions or a grid, with features["region_lengths"] where unequal). A prompt text, if any, stands before the caption.
    Each distinct picture is encoded once; its captions share the reading, and their gradients add up in it.

    Args:
        encoder: Vision encoder: folder or hub name, or entries of a transformers config with its model_type (vit, say).
            None: region or grid features are given.
        decoder: Language model that can attend to an encoder: folder or hub name, or entries of a transformers config
            with its model_type (gpt2, say). Cross-attention is switched on. It must be given.
        padding_side: Where unequal prompt texts are padded in a batch. The numbers are the same.
        freeze_encoder: Keep the encoder's weights and spend no memory on its gradients.
    """

    def __init__(
        self,
        encoder: dict[str, Any] | str | None = None,
        decoder: dict[str, Any] | str | None = None,
        padding_side: Literal["left", "right"] = "left",
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__()
        self.sources = [_source(encoder), _source(decoder)]
        if encoder is not None:
            check_source("ImageCaptioner.encoder", *self.sources[0])
        check_source("ImageCaptioner.decoder", *self.sources[1])
        self.sees = "regions" if encoder is None else "pixels"
        self.padding_side, self.freeze_encoder = padding_side, freeze_encoder

    def bind(self, facts: TaskFacts) -> None:
        tokenizer = facts.tokenizer
        self.bos, self.eos = begin_token(tokenizer, "ImageCaptioner"), end_token(tokenizer)
        crossed = {"add_cross_attention": True, "is_decoder": True}
        model = load(AutoModelForCausalLM, *self.sources[1], special_tokens(tokenizer), crossed)
        model = built(model, len(tokenizer), "ImageCaptioner")
        part, width = model.get_decoder(), model.config.hidden_size
        if "encoder_hidden_states" not in inspect.signature(part.forward).parameters:
            raise ValueError(
                f"ImageCaptioner: {type(model).__name__} cannot attend to a picture; expected a decoder with "
                "cross-attention. Use one such as model_type: gpt2."
            )
        example = {"input_ids": tiny_input(tokenizer), "encoder_hidden_states": torch.ones(1, 1, width)}
        self.reader = Reader(model, part, example, len(tokenizer), self.padding_side, "ImageCaptioner")
        self.reader.try_padding(example["input_ids"], Context(torch.ones(2, 1, width), None))
        self._make_encoder(facts.example, width)
        self.train(self.training)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        hidden = self.reader.read(self._prefix(rollout.prompts), rollout, self._encode(rollout.prompts))
        return PolicyOutput(rollout, hidden, self.reader.head, self.eos)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        return self.reader.begin(self._prefix(prompts), self._encode(prompts))

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, CacheState)
        return self.reader.step(tokens, state)

    def _prefix(self, prompts: Prompts) -> Prefix:
        return begin_with(self.bos, prompts.tokens, prompts.lengths)

    def _make_encoder(self, example: Prompts, width: int) -> None:
        """The encoder, and a bridge to the decoder's width; the example tells how wide its output is."""
        seen = self._look(example.select(torch.zeros(1, dtype=torch.long)))
        if self.sees == "regions":
            self.bridge: nn.Module = nn.Sequential(nn.Linear(seen.shape[2], width), nn.LayerNorm(width))
            return
        self.encoder = load(AutoModel, *self.sources[0], {}, {}).eval()
        if any(name.startswith("pooler.") for name, _ in self.encoder.named_parameters()):
            self.encoder.pooler = None  # its output is not used, and unused weights upset distributed training
        self.encoder.requires_grad_(not self.freeze_encoder)
        with torch.no_grad():
            states = self._states(seen)
        self.bridge = nn.Identity() if states.shape[2] == width else nn.Linear(states.shape[2], width)

    def _encode(self, prompts: Prompts) -> Context:
        """Encoder states of every row; each distinct picture is read once."""
        distinct, index = prompts.distinct()
        seen = self._look(distinct)
        mask: Bool[Tensor, "G R"] | None = None
        if self.sees == "pixels":
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
                seen = self._states(seen)
        elif "region_lengths" in distinct.features:
            longest, mask = trimmed_mask(distinct.features["region_lengths"])
            seen = seen[:, :longest]
        states = self.bridge(seen)
        return Context(spread(states, index), None if mask is None else spread(mask, index))

    def _states(self, pixels: Float[Tensor, "G C H W"]) -> Float[Tensor, "G N D"]:
        states = self.encoder(pixel_values=pixels).last_hidden_state
        return states if states.ndim == 3 else states.flatten(2).transpose(1, 2).contiguous()  # a convolutional map

    def _look(self, prompts: Prompts) -> Tensor:
        if self.sees not in prompts.features:
            advice = {"pixels": "Give the data pixels, or set encoder: null", "regions": "Name an encoder"}[self.sees]
            raise ValueError(
                f"ImageCaptioner: got prompts with features {sorted(prompts.features)}; expected {self.sees!r}. "
                f"{advice}, so that model and data fit."
            )
        return prompts.features[self.sees]


def _source(given: Entries | str | None) -> tuple[str | None, Entries | None]:
    """The path and the config entries that one argument means."""
    return (given, None) if isinstance(given, str) else (None, given)

"""Captions pictures: a vision encoder or given region features under a language model with cross-attention."""

import inspect
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.policies.adapters import without_adapters
from lrl_plugins.policies.layout import Prefix, begin_with, spread
from lrl_plugins.policies.loading import (
    begin_token,
    check_source,
    end_token,
    load,
    source_of,
    special_tokens,
    tiny_input,
)
from lrl_plugins.policies.model_parts import prepare
from lrl_plugins.policies.older_weights import accept_older_weights
from lrl_plugins.policies.pictures import Feature, load_encoder, see
from lrl_plugins.policies.reader import Reader, built
from lrl_plugins.policies.recompute import recompute_blocks
from lrl_plugins.policies.trained import EVERYTHING, Trained
from lrl_plugins.policies.transformers_state import Context
from lrl_plugins.policies.trials import allow_backspace, try_branches, try_padding
from lrl_plugins.policies.values import ValueHead, make_values, spoken


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
        train: Which weights learn; blocks and low-rank additions are those of the language model.
        gradient_checkpointing: Keep only the input of each block and compute it again in the backward pass, of drawn
            episodes too: less memory for the loss, about a third more time, the same gradient.
        value_head: A linear estimate of the return before each token, 0 at first: `none`, `detached` (its gradient
            stops before the other weights) or `shared`.
    """

    def __init__(
        self,
        encoder: dict[str, Any] | str | None = None,
        decoder: dict[str, Any] | str | None = None,
        padding_side: Literal["left", "right"] = "left",
        freeze_encoder: bool = False,
        train: Trained = EVERYTHING,
        gradient_checkpointing: bool = False,
        value_head: ValueHead = "none",
    ) -> None:
        super().__init__()
        self.sources = [source_of(encoder), source_of(decoder)]
        if encoder is not None:
            check_source("ImageCaptioner.encoder", *self.sources[0])
        check_source("ImageCaptioner.decoder", *self.sources[1])
        self.sees: Feature = "regions" if encoder is None else "pixels"
        self.padding_side, self.freeze_encoder = padding_side, freeze_encoder
        self.trained, self.gradient_checkpointing, self.value_head = train, gradient_checkpointing, value_head

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
        context = Context(torch.ones(2, 1, width), None)
        try_padding(self.reader, example["input_ids"], context)
        try_branches(self.reader, example["input_ids"], context)
        self.branches = self.reader.bars is None
        self._make_encoder(facts.example, width)
        prepare(self, self.reader, self.trained, self.gradient_checkpointing)
        allow_backspace(self.reader, tokenizer, example["input_ids"], context)
        if self.gradient_checkpointing and self.encoder is not None:
            recompute_blocks(self.encoder)  # a convolutional one has none
        self.values = make_values(self.value_head, self.reader.width, "ImageCaptioner")
        accept_older_weights(self)
        self.train(self.training)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        hidden = self.reader.read(self._prefix(rollout.prompts), rollout, self._encode(rollout.prompts))
        return spoken(rollout, hidden, self.reader.head, self.eos, self.values)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        return self.reader.begin(self._prefix(prompts), self._encode(prompts))

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        return self.reader.step(tokens, state)

    def adapter_off(self) -> AbstractContextManager[None] | None:
        return without_adapters(self.reader) if self.trained.parts == "lora" else None

    def _prefix(self, prompts: Prompts) -> Prefix:
        return begin_with(self.bos, prompts.tokens, prompts.lengths)

    def _make_encoder(self, example: Prompts, width: int) -> None:
        """The encoder, and a bridge to the decoder's width; the example tells how wide its output is."""
        self.encoder = load_encoder(self.sources[0], self.freeze_encoder) if self.sees == "pixels" else None
        with torch.no_grad():
            wide = see(example.select(torch.zeros(1, dtype=torch.long)), self.encoder, "ImageCaptioner")[0].shape[2]
        if self.encoder is None:
            self.bridge: nn.Module = nn.Sequential(nn.Linear(wide, width), nn.LayerNorm(width))
        else:
            self.bridge = nn.Identity() if wide == width else nn.Linear(wide, width)

    def _encode(self, prompts: Prompts) -> Context:
        """Encoder states of every row; each distinct picture is read once."""
        distinct, index = prompts.distinct()
        regions, mask = see(distinct, self.encoder, "ImageCaptioner")
        states = self.bridge(regions)
        return Context(spread(states, index), None if mask is None else spread(mask, index))

"""Decoder-only language models of the transformers library."""

from contextlib import AbstractContextManager
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.policies.adapters import without_adapters
from lrl_plugins.policies.compiled import Steps, known
from lrl_plugins.policies.layout import Prefix, begin_with
from lrl_plugins.policies.loading import begin_token, check_source, end_token, load, special_tokens, tiny_input
from lrl_plugins.policies.model_parts import prepare
from lrl_plugins.policies.older_weights import accept_older_weights
from lrl_plugins.policies.reader import Reader, built
from lrl_plugins.policies.trained import EVERYTHING, Trained
from lrl_plugins.policies.trials import (
    allow_backspace,
    compile_steps,
    try_branches,
    try_packing,
    try_padding,
    try_steps,
)
from lrl_plugins.policies.values import ValueHead, make_values, spoken


class CausalLM(Policy):
    """A decoder-only language model: GPT-2, Llama, Qwen and their kin.

    Prompt and episode are one line of tokens, so both are read by the same weights. Lines that branch are read in one
    pass, and a tokenizer's backspace takes the last word back, unless the model counts distance in columns.

    Args:
        path: Folder or hub name of a pretrained model; None draws fresh weights as `config` says.
        config: Entries of the transformers config. With `path` they override the stored ones (dropout, say); without,
            they describe the model and name its model_type. Vocabulary and special tokens come from the tokenizer.
        padding_side: Where unequal prompts are padded in a batch. The numbers are the same; "left" is needed by models
            with a sliding window.
        begin_with_bos: Put the begin token before every prompt. Without it, a prompt may not be empty.
        train: Which weights learn.
        gradient_checkpointing: Keep only the input of each block and compute it again in the backward pass, of drawn
            episodes too: less memory for the loss, about a third more time, the same gradient.
        value_head: A linear estimate of the return before each token, 0 at first: `none`, `detached` (its gradient
            stops before the other weights) or `shared`.
        steps: How a token is read while episodes are drawn: `eager`, or `compiled` by torch.compile into kernels of
            fixed shapes, on a GPU as CUDA graphs. Same numbers; compiling takes a while, and keys and values stay in
            memory between batches. Where it cannot work, a warning says why and steps are eager.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict[str, Any] | None = None,
        padding_side: Literal["left", "right"] = "left",
        begin_with_bos: bool = True,
        train: Trained = EVERYTHING,
        gradient_checkpointing: bool = False,
        value_head: ValueHead = "none",
        steps: Steps = "eager",
    ) -> None:
        super().__init__()
        check_source("CausalLM", path, config)
        self.steps = known(steps, "CausalLM")
        self.path, self.config = path, config
        self.padding_side, self.begin_with_bos = padding_side, begin_with_bos
        self.trained, self.gradient_checkpointing, self.value_head = train, gradient_checkpointing, value_head

    def bind(self, facts: TaskFacts) -> None:
        tokenizer = facts.tokenizer
        self.bos = begin_token(tokenizer, "CausalLM") if self.begin_with_bos else -1
        self.eos = end_token(tokenizer)
        model = load(AutoModelForCausalLM, self.path, self.config, special_tokens(tokenizer), {})
        model = built(model, len(tokenizer), "CausalLM")
        example = {"input_ids": tiny_input(tokenizer)}
        self.reader = Reader(model, model.get_decoder(), example, len(tokenizer), self.padding_side, "CausalLM")
        for trial in (try_padding, try_packing, try_branches, try_steps):
            trial(self.reader, example["input_ids"])
        self.branches = self.reader.bars is None
        prepare(self, self.reader, self.trained, self.gradient_checkpointing)
        allow_backspace(self.reader, tokenizer, example["input_ids"])
        if self.steps == "compiled":
            compile_steps(self.reader, example["input_ids"])
        self.values = make_values(self.value_head, self.reader.width, "CausalLM")
        accept_older_weights(self)
        self.train(self.training)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        if self.reader.packs:
            distinct, asked = rollout.prompts.distinct()
            follows = self.reader.follows(rollout)
            hidden = self.reader.read_packed(self._prefix(distinct), asked, rollout.tokens, rollout.lengths, follows)
        else:
            hidden = self.reader.read(self._prefix(rollout.prompts), rollout)
        return spoken(rollout, hidden, self.reader.head, self.eos, self.values)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        return self.reader.begin(self._prefix(prompts))

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        return self.reader.step(tokens, state)

    def adapter_off(self) -> AbstractContextManager[None] | None:
        return without_adapters(self.reader) if self.trained.parts == "lora" else None

    def _prefix(self, prompts: Prompts) -> Prefix:
        if self.begin_with_bos:
            return begin_with(self.bos, prompts.tokens, prompts.lengths)
        if int(prompts.lengths.min()) == 0:
            raise ValueError(
                "CausalLM: got an empty prompt with begin_with_bos: false; expected at least one token to read "
                "before the episode. Set begin_with_bos: true."
            )
        return Prefix(prompts.tokens, prompts.lengths)

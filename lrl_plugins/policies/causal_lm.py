"""Decoder-only language models of the transformers library."""

from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.policies.layout import Prefix, begin_with
from lrl_plugins.policies.loading import begin_token, check_source, end_token, load, special_tokens, tiny_input
from lrl_plugins.policies.reader import Reader, built
from lrl_plugins.policies.transformers_state import CacheState


class CausalLM(Policy):
    """A decoder-only language model: GPT-2, Llama, Qwen and their kin.

    Prompt and episode are one line of tokens, so both are read by the same weights.

    Args:
        path: Folder or hub name of a pretrained model; None draws fresh weights as `config` says.
        config: Entries of the transformers config. With `path` they override the stored ones (dropout, say); without,
            they describe the model and name its model_type. Vocabulary and special tokens come from the tokenizer.
        padding_side: Where unequal prompts are padded in a batch. The numbers are the same; "left" is needed by models
            with a sliding window.
        begin_with_bos: Put the begin token before every prompt. Without it, a prompt may not be empty.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict[str, Any] | None = None,
        padding_side: Literal["left", "right"] = "left",
        begin_with_bos: bool = True,
    ) -> None:
        super().__init__()
        check_source("CausalLM", path, config)
        self.path, self.config = path, config
        self.padding_side, self.begin_with_bos = padding_side, begin_with_bos

    def bind(self, facts: TaskFacts) -> None:
        tokenizer = facts.tokenizer
        self.bos = begin_token(tokenizer, "CausalLM") if self.begin_with_bos else -1
        self.eos = end_token(tokenizer)
        model = load(AutoModelForCausalLM, self.path, self.config, special_tokens(tokenizer), {})
        model = built(model, len(tokenizer), "CausalLM")
        example = {"input_ids": tiny_input(tokenizer)}
        self.reader = Reader(model, model.get_decoder(), example, len(tokenizer), self.padding_side, "CausalLM")
        self.reader.try_padding(example["input_ids"])
        self.reader.train(self.training)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        hidden = self.reader.read(self._prefix(rollout.prompts), rollout)
        return PolicyOutput(rollout, hidden, self.reader.head, self.eos)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        return self.reader.begin(self._prefix(prompts))

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, CacheState)
        return self.reader.step(tokens, state)

    def _prefix(self, prompts: Prompts) -> Prefix:
        if self.begin_with_bos:
            return begin_with(self.bos, prompts.tokens, prompts.lengths)
        if int(prompts.lengths.min()) == 0:
            raise ValueError(
                "CausalLM: got an empty prompt with begin_with_bos: false; expected at least one token to read "
                "before the episode. Set begin_with_bos: true."
            )
        return Prefix(prompts.tokens, prompts.lengths)

"""Encoder-decoder language models of the transformers library."""

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.policies.adapters import without_adapters
from lrl_plugins.policies.compiled import Steps, known
from lrl_plugins.policies.layout import Prefix, begin_with, spread, trimmed_mask
from lrl_plugins.policies.loading import begin_token, check_source, end_token, load, special_tokens, tiny_input
from lrl_plugins.policies.model_parts import prepare
from lrl_plugins.policies.older_weights import accept_older_weights
from lrl_plugins.policies.reader import Reader, built
from lrl_plugins.policies.revealed import (
    Revealed,
    RevealedState,
    Source,
    causal_mask,
    every_reading,
    is_read,
    reads_before,
    spread_revealed,
    visible,
)
from lrl_plugins.policies.trained import EVERYTHING, Trained
from lrl_plugins.policies.transformers_state import CacheState, Context
from lrl_plugins.policies.trials import allow_backspace, compile_steps, try_branches, try_steps
from lrl_plugins.policies.values import ValueHead, make_values, spoken


class Seq2SeqLM(Policy):
    """An encoder-decoder language model: Marian, BART, T5 and their kin.

    The encoder reads every distinct prompt once; its episodes share the reading, and their gradients add up in it.

    Where the task shows the prompt piece by piece (simultaneous translation), cross-attention sees what the episode has
    read so far; an episode is still read in one pass, and a later piece changes nothing that was said before it.

    Lines that branch are read in one pass, and a tokenizer's backspace takes the last word back: not by T5, which
    counts distance in columns, and not where the prompt is shown piece by piece.

    Args:
        path: Folder or hub name of a pretrained model; None draws fresh weights as `config` says.
        config: Entries of the transformers config. With `path` they override the stored ones (dropout, say); without,
            they describe the model and name its model_type. Vocabulary and special tokens come from the tokenizer.
        begin_with_bos: Put the begin token before every source, as BART was trained.
        end_with_eos: Put the end token behind every source, as Marian, BART and T5 were trained.
        train: Which weights learn; blocks are the decoder's, low-rank additions go into encoder and decoder.
        gradient_checkpointing: Keep only the input of each block and compute it again in the backward pass, of drawn
            episodes too: less memory for the loss, about a third more time, the same gradient.
        value_head: A linear estimate of the return before each token, 0 at first: `none`, `detached` (its gradient
            stops before the other weights) or `shared`.
        source: How the encoder reads the prompt: `whole` at once; `causal`, each token knowing only those before it;
            `reread`, anew after every piece that is shown, each reading complete (slower by as many pieces). A task
            that shows the prompt piece by piece needs one of the last two.
        steps: How a token is read while episodes are drawn: `eager`, or `compiled` by torch.compile into kernels of
            fixed shapes, on a GPU as CUDA graphs; Marian only. Same numbers; compiling takes a while, and keys and
            values stay in memory between batches. Where it cannot work, a warning says why and steps are eager.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict[str, Any] | None = None,
        begin_with_bos: bool = False,
        end_with_eos: bool = True,
        train: Trained = EVERYTHING,
        gradient_checkpointing: bool = False,
        value_head: ValueHead = "none",
        source: Source = "whole",
        steps: Steps = "eager",
    ) -> None:
        super().__init__()
        self.steps = known(steps, "Seq2SeqLM")
        if source not in get_args(Source):
            raise ValueError(f"Seq2SeqLM: got source {source!r}; expected one of {get_args(Source)}. Choose one.")
        check_source("Seq2SeqLM", path, config)
        self.path, self.config = path, config
        self.begin_with_bos, self.end_with_eos = begin_with_bos, end_with_eos
        self.trained, self.gradient_checkpointing, self.value_head = train, gradient_checkpointing, value_head
        self.source: Source = source
        self.reads: tuple[int, ...] = ()

    def bind(self, facts: TaskFacts) -> None:
        tokenizer = facts.tokenizer
        self.reads = facts.environment.reads if facts.environment is not None else ()
        self._check_source(facts)
        self.bos, self.eos = begin_token(tokenizer, "Seq2SeqLM"), end_token(tokenizer)
        defaults = {**special_tokens(tokenizer), "decoder_start_token_id": self.bos}
        model = load(AutoModelForSeq2SeqLM, self.path, self.config, defaults, {})
        model = built(model, len(tokenizer), "Seq2SeqLM")
        self.start = _start(model.config.to_dict().get("decoder_start_token_id"), self.bos)
        tokens = tiny_input(tokenizer)
        example = {"input_ids": tokens, "decoder_input_ids": tokens}
        self.reader = Reader(model, model.get_decoder(), example, len(tokenizer), "left", "Seq2SeqLM")
        context = Context(torch.randn(2, 3, self.reader.width), None)
        try_branches(self.reader, tokens, context)
        try_steps(self.reader, tokens, context)
        if self.reads:
            self.reader.bars = "its prompt is shown piece by piece"
        self.branches = self.reader.bars is None
        self._encoder = (model.get_encoder(),)  # in a tuple: it is registered already, inside the reader
        prepare(self, self.reader, self.trained, self.gradient_checkpointing)
        allow_backspace(self.reader, tokenizer, tokens, context)
        if self.steps == "compiled":
            compile_steps(self.reader, tokens, context)
        self.values = make_values(self.value_head, self.reader.width, "Seq2SeqLM")
        accept_older_weights(self)
        self.train(self.training)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        return spoken(rollout, self.hidden(rollout), self.reader.head, self.eos, self.values)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        hidden, state = self.first(prompts)
        return self.reader.head.logits(hidden), state

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        hidden, state = self.next(tokens, state)
        return self.reader.head.logits(hidden), state

    def hidden(self, rollout: Rollout) -> Float[Tensor, "B T D"]:
        """The decoder's state before each token of whole episodes, with gradients."""
        context, revealed = self._encode(rollout.prompts)
        if revealed is not None:
            context = replace(context, mask=revealed.mask(reads_before(rollout.tokens, self.reads)))
        return self.reader.read(self._prefix(rollout.prompts), rollout, context)

    def first(self, prompts: Prompts) -> tuple[Float[Tensor, "B D"], State]:
        """As `begin`, but the decoder's state instead of the logits."""
        context, revealed = self._encode(prompts)
        if revealed is None:
            return self.reader.first(self._prefix(prompts), context)
        reads = torch.zeros_like(prompts.lengths)
        context = replace(context, mask=revealed.mask(reads[:, None])[:, 0])
        hidden, state = self.reader.first(self._prefix(prompts), context)
        assert isinstance(state, CacheState)
        return hidden, RevealedState(state, revealed, reads)

    def next(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B D"], State]:
        """As `step`, but the decoder's state instead of the logits."""
        if isinstance(state, RevealedState):
            state = state.after(is_read(tokens, self.reads))
            hidden, inner = self.reader.next(tokens, state.inner)
            assert isinstance(inner, CacheState)
            return hidden, replace(state, inner=inner)
        return self.reader.next(tokens, state)

    def adapter_off(self) -> AbstractContextManager[None] | None:
        return without_adapters(self.reader) if self.trained.parts == "lora" else None

    def _prefix(self, prompts: Prompts) -> Prefix:
        return begin_with(self.start, prompts.tokens[:, :0], torch.zeros_like(prompts.lengths))

    def _encode(self, prompts: Prompts) -> tuple[Context, Revealed | None]:
        """Encoder states of every row, and what can be seen of them; each distinct prompt is read once."""
        distinct, index = prompts.distinct()
        source, lengths = self._source(distinct)
        self._check_lengths(lengths)
        longest, mask = trimmed_mask(lengths)
        source = source[:, :longest]
        if not self.reads:
            states = self._read(source, mask)
            return Context(spread(states, index), None if mask is None else spread(mask, index)), None
        counts = visible(distinct, int(self.begin_with_bos), int(self.end_with_eos), "Seq2SeqLM")
        if self.source == "causal":
            states = self._read(source, causal_mask(longest, source.device))
            revealed = Revealed(counts, longest, 1)
        else:
            sources, seen = every_reading(source, counts)
            states = self._read(sources, length_mask(seen, longest)).view(len(source), -1, self.reader.width)
            revealed = Revealed(counts, longest, counts.shape[1])
        return Context(spread(states, index), None), spread_revealed(revealed, index)

    def _read(self, source: Int[Tensor, "G N"], mask: Tensor | None) -> Float[Tensor, "G N D"]:
        return self._encoder[0](input_ids=source, attention_mask=mask).last_hidden_state

    def _check_source(self, facts: TaskFacts) -> None:
        who = type(facts.environment).__name__
        if self.reads and self.source == "whole":
            raise ValueError(
                f"Seq2SeqLM: got source: whole, but {who} shows the prompt piece by piece; expected a policy that sees "
                "no more than it has read. Set source: causal or source: reread."
            )
        if not self.reads and self.source != "whole":
            raise ValueError(
                f"Seq2SeqLM: got source: {self.source}, but this task shows prompts at once; expected source: whole. "
                "Leave `source` out, or choose a task that shows them piece by piece (SimultaneousTranslation)."
            )

    def _check_lengths(self, lengths: Int[Tensor, " G"]) -> None:
        if int(lengths.min()) == 0:
            raise ValueError(
                "Seq2SeqLM: got an empty prompt with begin_with_bos and end_with_eos both false; expected at least "
                "one token for the encoder. Set end_with_eos: true."
            )

    def _source(self, prompts: Prompts) -> tuple[Int[Tensor, "G N"], Int[Tensor, " G"]]:
        tokens, lengths = prompts.tokens, prompts.lengths
        if self.begin_with_bos:
            tokens, lengths = begin_with(self.bos, tokens, lengths)
        if self.end_with_eos:
            tokens = torch.nn.functional.pad(tokens, (0, 1))
            tokens = tokens.scatter(1, lengths[:, None], self._end())
            lengths = lengths + 1
        fill = tokens.new_zeros(())  # never looked at, but an id that the model knows
        return torch.where(length_mask(lengths, tokens.shape[1]), tokens, fill), lengths

    def _end(self) -> int:
        if self.eos is None:
            raise ValueError(
                "Seq2SeqLM: the tokenizer has no end token; expected one, to close every source. "
                "Set end_with_eos: false."
            )
        return self.eos


def _start(configured: int | None, bos: int) -> int:
    return bos if configured is None else configured

"""A transformers language model read in one pass or step by step: the engine under three policies."""

import inspect
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedModel

from lrl_core.masks import length_mask
from lrl_core.types import Rollout
from lrl_core.vocab import Head
from lrl_plugins.policies.compiled import Compiled, as_it_is
from lrl_plugins.policies.heads import fit_vocabulary, hidden_scale, output_head
from lrl_plugins.policies.layout import Line, Prefix, Side, lay_out
from lrl_plugins.policies.packing import PACKED, pack
from lrl_plugins.policies.row_cache import RowCache
from lrl_plugins.policies.steps import Step, steps_of
from lrl_plugins.policies.transformers_state import CacheState, Context


class Reader(nn.Module):
    """Hidden states before every episode token, and logits step by step, from one transformers model.

    Args:
        model: A language model, in eval mode.
        part: The part of it whose output is the hidden states: its decoder.
        example: Arguments of one tiny call of the model, to verify its output matrix.
        vocabulary: Number of token ids.
        side: Where unequal prefixes are padded.
        who: Name of the policy, for errors.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        part: PreTrainedModel,
        example: dict[str, Any],
        vocabulary: int,
        side: Side,
        who: str,
    ) -> None:
        super().__init__()
        self.model, self.vocabulary, self.side, self.who = model, vocabulary, side, who
        self._part = (part,)  # in a tuple: it is registered already, inside the model
        self.places = "position_ids" in inspect.signature(part.forward).parameters
        self.limit = getattr(model.config, "max_position_embeddings", None)
        self.scale = hidden_scale(model, part, example, vocabulary, who)
        cache = DynamicCache(config=part.config)
        self.by_column = any(cache.is_sliding) or any(cache.is_linear)
        self.uneven, self.packs, self.steps = True, False, False
        self.compiled: Compiled | None = None
        self._check_side()

    @property
    def part(self) -> PreTrainedModel:
        """The decoder."""
        return self._part[0]

    @property
    def head(self) -> Head:
        """The output matrix."""
        return output_head(self.model, self.vocabulary)

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return self.head.weight.shape[1]

    @torch.no_grad()
    def try_padding(self, example: Int[Tensor, "1 3"], context: Context | None = None) -> None:
        """Find out with two tiny prefixes whether this model can read unequal ones; call in eval mode.

        Models that number tokens by their column and take no positions cannot.

        Args:
            example: Three ordinary ids.
            context: Two rows for cross-attention; None without an encoder.
        """
        tokens = example.expand(2, -1)
        together = self._after_one(Prefix(tokens, torch.tensor([2, 3])), context)
        short = context.select(torch.tensor([0])) if context else None
        alone = self._after_one(Prefix(tokens[:1, :2], torch.tensor([2])), short)
        self.uneven = _near(together[0], alone[0], 1e-4)

    @torch.no_grad()
    def try_packing(self, example: Int[Tensor, "1 3"]) -> None:
        """Find out with two tiny prompts whether this model can read one packed line; call in eval mode.

        Args:
            example: Three ordinary ids.
        """
        part = self.part
        if not self.places or self.by_column or part.config._attn_implementation != "sdpa":
            return
        part.set_attn_implementation(PACKED)
        prompts, asked = Prefix(example.expand(2, -1), torch.tensor([2, 3])), torch.tensor([0, 0, 1])
        episodes, lengths = example.expand(3, -1), torch.tensor([3, 2, 3])
        line = lay_out(Prefix(prompts.tokens[asked], prompts.lengths[asked]), episodes[:, :-1], lengths, self.side)
        apart = line.align(self._hidden(line.tokens, line.mask, line.positions, None, None, 0), 3)
        try:
            together = self.read_packed(prompts, asked, episodes, lengths)
        except Exception:  # whatever a model does with a line it was not written for, it is then read padded
            self.packs = False
        else:
            apart[1, 2] = together[1, 2]  # behind the end of its episode
            self.packs = _near(together, apart, 1e-4)
        if not self.packs:
            part.set_attn_implementation("sdpa")

    @torch.no_grad()
    def try_steps(self, example: Int[Tensor, "1 3"], context: Context | None = None) -> None:
        """Find out with two tiny prefixes whether a way around the modules gives their numbers; call in eval mode.

        Args:
            example: Three ordinary ids.
            context: Two rows for cross-attention; None without an encoder.
        """
        prefix = self._two(example)
        through = self._after_one(prefix, context)
        self.steps = True
        around = self._after_one(prefix, context)
        self.steps = _near(around, through, 1e-5)

    @torch.no_grad()
    def compile_steps(self, example: Int[Tensor, "1 3"], context: Context | None = None) -> None:
        """Take steps through compiled kernels from now on, if memory of fixed size gives the numbers of the modules.

        What this costs is one uncompiled step; kernels are made when episodes are played. Leaves eval mode on.

        Args:
            example: Three ordinary ids.
            context: Two rows for cross-attention; None without an encoder.
        """
        prefix = self.eval()._two(example)
        through = self._after_one(prefix, context)
        trial = self.compiled = Compiled(self.who, as_it_is)
        try:
            around = self._after_one(prefix, context)
        except TypeError as error:
            trial.give_up(str(error))
        else:
            if not (trial.failed or _near(around, through, 1e-5)):
                trial.give_up(f"{type(self.part).__name__} then gives other numbers")
        self.compiled = None if trial.failed else Compiled(self.who)

    def _two(self, example: Int[Tensor, "1 3"]) -> Prefix:
        """Two tiny prefixes, of different lengths where the model can read such."""
        return Prefix(example.expand(2, -1), torch.tensor([3, 2 if self.uneven and self.places else 3]))

    def _after_one(self, prefix: Prefix, context: Context | None) -> Float[Tensor, "B V"]:
        _, state = self.begin(prefix, context)
        return self.step(prefix.tokens[:, 0], state)[0]

    def read(self, prefix: Prefix, rollout: Rollout, context: Context | None = None) -> Float[Tensor, "B T D"]:
        """The state before each episode token, in one pass."""
        line = self._lay_out(prefix, rollout.tokens[:, :-1], rollout.lengths)
        hidden = self._hidden(line.tokens, line.mask, line.positions, context, None, 0)
        return line.align(hidden, rollout.tokens.shape[1])

    def read_packed(
        self, prompts: Prefix, asked: Int[Tensor, " B"], episodes: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B T D"]:
        """The state before each episode token, where no padding is read and each distinct prompt once.

        Args:
            prompts: What is read before an episode, once per distinct prompt.
            asked: Which of them each episode belongs to.
            episodes: Episode tokens, padded on the right.
            lengths: How many of them are real.
        """
        self._check_room(int(prompts.lengths.max()) + episodes.shape[1] - 1)
        line = pack(prompts, asked, episodes, lengths)
        # A mask of four axes is taken as it is: nothing is made of it for every pair of tokens.
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=line.tokens.device)
        hidden = self.part(
            input_ids=line.tokens,
            position_ids=line.positions,
            attention_mask=mask,
            use_cache=False,
            packing=line.packing,
        ).last_hidden_state
        return line.align(self._scaled(hidden), episodes.shape[1])

    def begin(self, prefix: Prefix, context: Context | None = None) -> tuple[Float[Tensor, "B V"], CacheState]:
        """Read the prefixes; logits of the first episode token."""
        hidden, state = self.first(prefix, context)
        return self.head.logits(hidden), state

    def step(self, tokens: Int[Tensor, " B"], state: CacheState) -> tuple[Float[Tensor, "B V"], CacheState]:
        """Read one more token of each row; logits of the next one."""
        hidden, after = self.next(tokens, state)
        return self.head.logits(hidden), after

    def first(self, prefix: Prefix, context: Context | None = None) -> tuple[Float[Tensor, "B D"], CacheState]:
        """Read the prefixes; the state before the first episode token."""
        line = self._lay_out(prefix, prefix.tokens[:, :0], prefix.lengths)
        cache = self._new_cache(context is not None)
        hidden = self._hidden(line.tokens, line.mask, line.positions, context, cache, 0)
        columns = line.tokens.shape[1]
        # Right padding needs no mask to read the prefixes, but the next token must not look at the fill before it.
        mask = line.mask if line.mask is not None else length_mask(prefix.lengths, columns) if line.uneven else None
        position = prefix.lengths if line.uneven else None
        rest = context.remembered() if context else None
        state = CacheState(cache, columns, mask, position, rest, self._steps(prefix.tokens.device.type))
        return line.align(hidden, 1)[:, 0], state

    def next(self, tokens: Int[Tensor, " B"], state: CacheState) -> tuple[Float[Tensor, "B D"], CacheState]:
        """Read one more token of each row; the state before the next one."""
        after = state.grown()
        if state.steps is not None:
            self._check_room(after.columns)
            masks = [None if mask is None else mask[:, None, None] for mask in (after.mask, _mask_of(state.context))]
            places = state.columns if state.position is None else state.position
            hidden = state.steps(tokens, places, masks[0], state.cache, masks[1])
            return self._scaled(hidden), after
        positions = None if state.position is None else state.position[:, None]
        hidden = self._hidden(tokens[:, None], after.mask, positions, state.context, state.cache, state.columns)
        return hidden[:, 0], after

    def _hidden(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B K"] | None,
        positions: Int[Tensor, "B L"] | None,
        context: Context | None,
        cache: Cache | None,
        past: int,
    ) -> Float[Tensor, "B L D"]:
        self._check_room(past + tokens.shape[1])
        arguments: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask, "use_cache": cache is not None}
        if cache is not None:
            arguments["past_key_values"] = cache
        if self.places and positions is not None:
            arguments["position_ids"] = positions
        if context is not None:
            arguments |= {"encoder_hidden_states": context.states, "encoder_attention_mask": context.attended()}
        return self._scaled(self.part(**arguments).last_hidden_state)

    def _scaled(self, hidden: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """What the output matrix is applied to."""
        return hidden if self.scale == 1 else hidden * self.scale

    def _new_cache(self, crossed: bool) -> Cache:
        # A plain cache counts the layers itself; some configs (a Marian decoder's) name the encoder's number.
        # Memory that is written to cannot be differentiated through.
        new: type[DynamicCache] | type[RowCache] = DynamicCache if torch.is_grad_enabled() else RowCache
        cache = DynamicCache(config=self.part.config) if self.by_column else new()
        return EncoderDecoderCache(cache, new()) if crossed else cache

    def _steps(self, device: str) -> Step | None:
        """The way around the modules, where it gives what they would give now."""
        mixed = torch.is_autocast_enabled(device)
        if mixed and self.compiled is not None:
            self.compiled.warn("the precision is a mixed one")
        if mixed or self.part.training or torch.is_grad_enabled():
            return None
        compiled = self.compiled.steps(self.part) if self.compiled is not None else None
        return compiled or (steps_of(self.part) if self.steps else None)

    def _lay_out(self, prefix: Prefix, episode: Int[Tensor, "B E"], lengths: Int[Tensor, " B"]) -> Line:
        line = lay_out(prefix, episode, lengths, self.side)
        if line.uneven and not self.uneven:
            raise ValueError(
                f"{self.who}: got prompts of {prefix.lengths.unique().tolist()} tokens (begin token counted); expected "
                f"equal lengths, because {type(self.model).__name__} numbers tokens by their column and cannot be "
                f"padded on the {self.side}. Use prompts of one length or another model."
            )
        return line

    def _check_side(self) -> None:
        if self.side == "right" and self.by_column:
            raise ValueError(
                f"{self.who}: padding_side is 'right', but {type(self.model).__name__} counts distance in columns, so "
                "padding between prompt and episode would change its numbers. Set padding_side: left."
            )

    def _check_room(self, columns: int) -> None:
        if self.limit is not None and columns > self.limit:
            raise ValueError(
                f"{self.who}: got a line of {columns} tokens (prompt and episode); {type(self.model).__name__} has "
                f"room for {self.limit}. Shorten prompts or the decoder's max_length, or choose a longer model."
            )


def _near(mine: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two ways of reading give the same numbers, up to a share of the largest."""
    return bool((mine - other).abs().max() <= tolerance * other.abs().max())


def _mask_of(context: Context | None) -> Bool[Tensor, "B N"] | None:
    return None if context is None else context.mask


def built(model: PreTrainedModel, vocabulary: int, who: str) -> PreTrainedModel:
    """The model with room for every token id, in eval mode while it is being examined."""
    fit_vocabulary(model, vocabulary, who)
    return model.eval()

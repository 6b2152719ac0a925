"""A transformers language model read in one pass or step by step: the engine under three policies."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedModel

from lrl_core.backspace import follows_of
from lrl_core.interfaces import State
from lrl_core.masks import length_mask
from lrl_core.types import Rollout
from lrl_core.vocab import Head
from lrl_plugins.policies.branches import checked, lay_branches, placed
from lrl_plugins.policies.compiled import Compiled
from lrl_plugins.policies.heads import fit_vocabulary, hidden_scale, output_head
from lrl_plugins.policies.layout import Line, Prefix, Side, lay_out
from lrl_plugins.policies.packing import pack
from lrl_plugins.policies.row_cache import RowCache
from lrl_plugins.policies.stack_state import StackState
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
        self.bars: str | None = "nobody has tried"  # what stands in the way of branches; None: nothing does
        self.moves = False  # whether it can be told where a token stands though it takes no positions
        self.backspace: int | None = None
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

    def read(self, prefix: Prefix, rollout: Rollout, context: Context | None = None) -> Float[Tensor, "B T D"]:
        """The state before each episode token, in one pass."""
        follows = self.follows(rollout)
        if follows is not None:
            tree = lay_branches(prefix, rollout.tokens, rollout.lengths, follows)
            return tree.align(self.hidden(tree.tokens, tree.mask, tree.positions, context))
        line = self._lay_out(prefix, rollout.tokens[:, :-1], rollout.lengths)
        return line.align(self.hidden(line.tokens, line.mask, line.positions, context), rollout.tokens.shape[1])

    def follows(self, rollout: Rollout) -> Int[Tensor, "B T"] | None:
        """Which token each token follows, -1 for the prompt; None where that is the one before it."""
        follows = rollout.follows
        if follows is None and self.backspace is not None and bool((rollout.tokens == self.backspace).any()):
            follows = follows_of(rollout.tokens, rollout.lengths, self.backspace)
        if follows is not None and self.bars is not None:
            raise ValueError(
                f"{self.who}: got episodes whose tokens follow other tokens than the one before, but {self.bars}; "
                "expected plain lines. Use a model such as gpt2, llama, marian or bart."
            )
        return None if follows is None else checked(follows, rollout.lengths, self.who)

    def read_packed(
        self,
        prompts: Prefix,
        asked: Int[Tensor, " B"],
        episodes: Int[Tensor, "B T"],
        lengths: Int[Tensor, " B"],
        follows: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The state before each episode token, where no padding is read and each distinct prompt once.

        Args:
            prompts: What is read before an episode, once per distinct prompt.
            asked: Which of them each episode belongs to.
            episodes: Episode tokens, padded on the right.
            lengths: How many of them are real.
            follows: What `follows` says of them.
        """
        line = pack(prompts, asked, episodes, lengths, follows)
        self._check_room(int(prompts.lengths.max()) + episodes.shape[1] - 1, line.positions)
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

    def begin(self, prefix: Prefix, context: Context | None = None) -> tuple[Float[Tensor, "B V"], State]:
        """Read the prefixes; logits of the first episode token."""
        hidden, state = self.first(prefix, context)
        return self.head.logits(hidden), state

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        """Read one more token of each row; logits of the next one."""
        hidden, after = self.next(tokens, state)
        return self.head.logits(hidden), after

    def first(self, prefix: Prefix, context: Context | None = None) -> tuple[Float[Tensor, "B D"], State]:
        """Read the prefixes; the state before the first episode token."""
        line = self._lay_out(prefix, prefix.tokens[:, :0], prefix.lengths)
        cache = self._new_cache(context is not None)
        hidden = self.hidden(line.tokens, line.mask, line.positions, context, cache)
        columns = line.tokens.shape[1]
        # Right padding needs no mask to read the prefixes, but the next token must not look at the fill before it.
        mask = line.mask if line.mask is not None else length_mask(prefix.lengths, columns) if line.uneven else None
        position = prefix.lengths if line.uneven else None
        rest = context.remembered() if context else None
        state: State = CacheState(cache, columns, mask, position, rest, self._steps(prefix.tokens.device.type))
        if self.backspace is not None:
            place = prefix.lengths - 1
            assert isinstance(state, CacheState)
            state = StackState.of(state, line.before, prefix.tokens.gather(1, place[:, None])[:, 0], place)
        return line.align(hidden, 1)[:, 0], state

    def next(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B D"], State]:
        """Read one more token of each row; the state before the next one."""
        if isinstance(state, StackState):
            assert self.backspace is not None
            tokens, stack = state.after(tokens, self.backspace)
            hidden, inner = self.next(tokens, stack.inner)
            assert isinstance(inner, CacheState)
            return hidden, replace(stack, inner=inner)
        assert isinstance(state, CacheState)
        after = state.grown()
        if state.steps is not None:
            self._check_room(after.columns, state.position)
            masks = [None if mask is None else mask[:, None, None] for mask in (after.mask, _mask_of(state.context))]
            places = state.columns if state.position is None else state.position
            hidden = state.steps(tokens, places, masks[0], state.cache, masks[1])
            return self._scaled(hidden), after
        positions = None if state.position is None else state.position[:, None]
        hidden = self.hidden(tokens[:, None], after.mask, positions, state.context, state.cache, state.columns)
        return hidden[:, 0], after

    def hidden(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B K"] | Bool[Tensor, "B 1 L K"] | None,
        positions: Int[Tensor, "B L"] | None,
        context: Context | None = None,
        cache: Cache | None = None,
        past: int = 0,
    ) -> Float[Tensor, "B L D"]:
        """The state on each token.

        Args:
            tokens: What is read.
            mask: Which tokens, past ones included, can be looked at, by all or by each; None: all that came before.
            positions: Place of each token; None where that is the column.
            context: What cross-attention looks at.
            cache: Past tokens; grows by those that are read.
            past: How many of them there are.
        """
        self._check_room(past + tokens.shape[1], positions)
        arguments: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask, "use_cache": cache is not None}
        if cache is not None:
            arguments["past_key_values"] = cache
        if self.places and positions is not None:
            arguments["position_ids"] = positions
        if context is not None:
            arguments |= {"encoder_hidden_states": context.states, "encoder_attention_mask": context.attended()}
        with self._told(positions):
            return self._scaled(self.part(**arguments).last_hidden_state)

    def _told(self, positions: Int[Tensor, "B L"] | None) -> AbstractContextManager[None]:
        if positions is None or not self.moves:
            return nullcontext()
        return placed(self.part.get_submodule("embed_positions"), positions)

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

    def _check_room(self, columns: int, positions: Tensor | None = None) -> None:
        if self.limit is None or columns <= self.limit:
            return
        # A long line may be a tree of short branches.
        if positions is None or not (self.places or self.moves) or int(positions.max()) >= self.limit:
            raise ValueError(
                f"{self.who}: got a line of {columns} tokens (prompt and episode); {type(self.model).__name__} has "
                f"room for {self.limit}. Shorten prompts or the decoder's max_length, or choose a longer model."
            )


def _mask_of(context: Context | None) -> Bool[Tensor, "B N"] | None:
    return None if context is None else context.mask


def built(model: PreTrainedModel, vocabulary: int, who: str) -> PreTrainedModel:
    """The model with room for every token id, in eval mode while it is being examined."""
    fit_vocabulary(model, vocabulary, who)
    return model.eval()

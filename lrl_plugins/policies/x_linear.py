"""Captions pictures by X-linear attention: second-order interactions between what is said and what is seen."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_core.vocab import Head
from lrl_plugins.policies.layout import Line, Prefix, begin_with, lay_out, spread
from lrl_plugins.policies.loading import begin_token, check_source, end_token, source_of
from lrl_plugins.policies.older_weights import accept_older_weights
from lrl_plugins.policies.pictures import load_encoder, see
from lrl_plugins.policies.stack_state import refuse_backspace
from lrl_plugins.policies.trained import EVERYTHING, Trained, freeze_the_rest, refuse_lora
from lrl_plugins.policies.values import ValueHead, make_values, spoken
from lrl_plugins.policies.x_linear_blocks import ALPHA, Sight, XLinearBlock, XLinearEncoder


class Memory(NamedTuple):
    """What the decoder remembers of the words."""

    hidden: Float[Tensor, "B D"]
    """Of the LSTM."""
    cell: Float[Tensor, "B D"]
    """Of the LSTM."""
    context: Float[Tensor, "B D"]
    """What the last word made of the picture: the state that the next one is chosen from."""


class Picture(NamedTuple):
    """An encoded picture."""

    sight: Sight
    """What the decoder's block looks at."""
    summary: Float[Tensor, "B D"]
    """The whole picture as one vector."""

    def select(self, rows: Int[Tensor, " N"]) -> "Picture":
        """The pictures of these rows, in this order."""
        keys, values, mask = self.sight
        return Picture(Sight(keys[rows], values[rows], None if mask is None else mask[rows]), self.summary[rows])


class XLinearState(State):
    """What a captioner remembers between two steps.

    Args:
        memory: Of the words.
        picture: What they are about.
    """

    def __init__(self, memory: Memory, picture: Picture) -> None:
        self.memory, self.picture = memory, picture

    def select(self, rows: Int[Tensor, " N"]) -> "XLinearState":
        return XLinearState(Memory(*(part[rows] for part in self.memory)), self.picture.select(rows))


class XLinearDecoder(nn.Module):
    """An LSTM whose state looks at the picture through one X-linear block, and a gate over both.

    Args:
        width: Channels.
        heads: Groups of channels that attend apart.
        dropout: Share of entries dropped in train mode.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(2 * width, width)
        self.block = XLinearBlock(width, heads, dropout)
        self.gate = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GLU())
        self.drop = nn.Dropout(dropout)

    def forward(self, words: Float[Tensor, "B D"], memory: Memory, picture: Picture) -> Memory:
        """Read one word."""
        told = torch.cat([words, picture.summary + self.drop(memory.context)], 1)
        hidden, cell = self.cell(told, (memory.hidden, memory.cell))
        seen = self.block(hidden, picture.sight)
        return Memory(hidden, cell, self.gate(torch.cat([seen, hidden], 1)))


class XLinearCaptioner(Policy):
    """X-linear attention network, X-LAN (Pan 2020, arXiv:2003.14080): bilinear pooling in encoder and decoder.

    With an encoder it reads features["pixels"] [B, 3, H, W]; without one, features["regions"] [B, R, D] (object
    regions or a grid, with features["region_lengths"] where unequal), whose order does not matter. A prompt text, if
    any, stands before the caption. Each distinct picture is encoded once. The paper's network has hidden: 1024.

    Args:
        encoder: Vision encoder: folder or hub name, or entries of a transformers config with its model_type (vit, say).
            None: region or grid features are given.
        freeze_encoder: Keep the vision encoder's weights and spend no memory on its gradients.
        hidden: Channels of regions, word vectors and states.
        heads: Groups of channels that attend apart; at least two channels each.
        layers: Number of X-linear blocks that read the regions; the decoder has one more.
        dropout: Share of entries dropped in train mode, after regions, words, pairs, updates and states.
        train: Which weights learn; blocks are those that read the regions, then the decoder. Not `lora`.
        value_head: A linear estimate of the return before each token, 0 at first: `none`, `detached` (its gradient
            stops before the other weights) or `shared`.
    """

    def __init__(
        self,
        encoder: dict[str, Any] | str | None = None,
        freeze_encoder: bool = False,
        hidden: int = 512,
        heads: int = 8,
        layers: int = 4,
        dropout: float = 0.3,
        train: Trained = EVERYTHING,
        value_head: ValueHead = "none",
    ) -> None:
        super().__init__()
        self.source = source_of(encoder)
        if encoder is not None:
            check_source("XLinearCaptioner.encoder", *self.source)
        if hidden % heads or hidden < 2 * heads:
            raise ValueError(
                f"XLinearCaptioner: got hidden={hidden} and heads={heads}; expected at least two channels for each "
                f"head, and none left over. Try hidden: {max(2, round(hidden / heads)) * heads}."
            )
        refuse_lora(train, "XLinearCaptioner")
        self.pixels, self.freeze_encoder = encoder is not None, freeze_encoder
        self.hidden, self.heads, self.layers, self.share = hidden, heads, layers, dropout
        self.trained, self.value_head = train, value_head

    def bind(self, facts: TaskFacts) -> None:
        refuse_backspace(facts.tokenizer, "XLinearCaptioner", "its memory of a word cannot be undone")
        vocabulary, width, share = len(facts.tokenizer), self.hidden, self.share
        self.bos, self.eos = begin_token(facts.tokenizer, "XLinearCaptioner"), end_token(facts.tokenizer)
        self.vision = load_encoder(self.source, self.freeze_encoder) if self.pixels else None
        with torch.no_grad():
            regions, _ = see(facts.example.select(torch.zeros(1, dtype=torch.long)), self.vision, "XLinearCaptioner")
        self.bridge = nn.Sequential(nn.Linear(regions.shape[2], width), nn.CELU(ALPHA), nn.Dropout(share))
        self.encoder = XLinearEncoder(width, self.heads, self.layers, share)
        self.words = nn.Sequential(nn.Embedding(vocabulary, width), nn.CELU(ALPHA), nn.Dropout(share))
        self.decoder = XLinearDecoder(width, self.heads, share)
        self.drop = nn.Dropout(share)
        self.output = nn.Linear(width, vocabulary)
        blocks = [list(block.parameters()) for block in (*self.encoder.layers, self.decoder)]
        freeze_the_rest(self, self.trained, list(self.output.parameters()), blocks, "XLinearCaptioner")
        self.values = make_values(self.value_head, width, "XLinearCaptioner")
        accept_older_weights(self)
        self.train(self.training)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        line = lay_out(self._prefix(rollout.prompts), rollout.tokens[:, :-1], rollout.lengths, "right")
        states = torch.stack([memory.context for memory in self._read(line, self._look(rollout.prompts))], 1)
        hidden = self.drop(line.align(states, rollout.tokens.shape[1]))
        return spoken(rollout, hidden, self._head, self.eos, self.values)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        prefix, picture = self._prefix(prompts), self._look(prompts)
        line = lay_out(prefix, prefix.tokens[:, :0], prefix.lengths, "right")
        columns = zip(*self._read(line, picture), strict=True)
        memory = Memory(*(line.align(torch.stack(part, 1), 1)[:, 0] for part in columns))
        return self._logits(memory), XLinearState(memory, picture)

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, XLinearState)
        memory = self.decoder(self.words(tokens), state.memory, state.picture)
        return self._logits(memory), XLinearState(memory, state.picture)

    @property
    def _head(self) -> Head:
        return Head(self.output.weight, self.output.bias)

    def _logits(self, memory: Memory) -> Float[Tensor, "B V"]:
        return self._head.logits(self.drop(memory.context))

    def _prefix(self, prompts: Prompts) -> Prefix:
        return begin_with(self.bos, prompts.tokens, prompts.lengths)

    def _read(self, line: Line, picture: Picture) -> list[Memory]:
        """The memory after every column. Fill tokens stand behind a row's own, so nothing reads what they leave."""
        memory = Memory(*(torch.zeros_like(picture.summary) for _ in Memory._fields))
        memories = []
        for words in self.words(line.tokens).unbind(1):
            memory = self.decoder(words, memory, picture)
            memories.append(memory)
        return memories

    def _look(self, prompts: Prompts) -> Picture:
        """The picture of every row; each distinct one is encoded once."""
        distinct, index = prompts.distinct()
        regions, mask = see(distinct, self.vision, "XLinearCaptioner")
        if mask is not None:
            regions = regions.masked_fill(~mask[:, :, None], 0)
        regions, summary = self.encoder(self.bridge(regions), mask)
        keys, values, _ = self.decoder.block.look(regions, mask)
        sight = Sight(spread(keys, index), spread(values, index), None if mask is None else spread(mask, index))
        return Picture(sight, spread(summary, index))

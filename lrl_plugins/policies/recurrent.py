"""A recurrent language model, small enough for a laptop."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_core.vocab import Head
from lrl_plugins.policies.cells import differentiable
from lrl_plugins.policies.layout import spread
from lrl_plugins.policies.loading import begin_token, end_token
from lrl_plugins.policies.older_weights import accept_older_weights
from lrl_plugins.policies.stack_state import refuse_backspace
from lrl_plugins.policies.trained import EVERYTHING, Trained, freeze_the_rest, refuse_lora
from lrl_plugins.policies.values import ValueHead, make_values, spoken

Memory = tuple[Tensor, ...]
"""What the cells remember, each [layers B H]: hidden state, and the cell state of an LSTM."""


class RecurrentState(State):
    """What the cells remember.

    Args:
        memory: Hidden state, and the cell state of an LSTM.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def select(self, rows: Int[Tensor, " N"]) -> "RecurrentState":
        return RecurrentState(tuple(part.index_select(1, rows) for part in self.memory))


class Recurrent(Policy):
    """An LSTM or GRU that reads the prompt, then a begin token and the episode.

    Args:
        cell: Kind of recurrent cell.
        embedding: Width of the word vectors.
        hidden: Width of the state.
        layers: Number of stacked cells.
        dropout: Share of word-vector and state entries dropped in train mode.
        tie: Use the word vectors as output matrix too; embedding must equal hidden.
        features: Name of the prompts' features that set the initial state, where the task has them: one vector per
            row, or several whose mean is taken (over the first region_lengths of them, for regions).
        train: Which weights learn; blocks are the stacked cells. Not `lora`.
        value_head: A linear estimate of the return before each token, 0 at first: `none`, `detached` (its gradient
            stops before the other weights) or `shared`.
        spread: Standard deviation of the normal distribution around 0 that all weights are drawn from at first, such
            as 0.1 (Yu et al. 2017); None: PyTorch's own ways, with word vectors of N(0, 1).
    """

    def __init__(
        self,
        cell: Literal["lstm", "gru"] = "lstm",
        embedding: int = 256,
        hidden: int = 512,
        layers: int = 1,
        dropout: float = 0.0,
        tie: bool = False,
        features: str = "regions",
        train: Trained = EVERYTHING,
        value_head: ValueHead = "none",
        spread: float | None = None,
    ) -> None:
        super().__init__()
        if cell not in ("lstm", "gru"):
            raise ValueError(f"Recurrent: got cell={cell!r}; expected 'lstm' or 'gru'. Choose one of them.")
        if tie and embedding != hidden:
            raise ValueError(
                f"Recurrent: got embedding={embedding} and hidden={hidden} with tie: true; expected equal widths. "
                "Make them equal or set tie: false."
            )
        if spread is not None and spread <= 0:
            raise ValueError(f"Recurrent: spread is {spread}; expected a number > 0, or null. Usual: 0.1.")
        self.cell, self.embedding, self.hidden, self.layers = cell, embedding, hidden, layers
        self.spread = spread
        self.share, self.tie, self.features = dropout, tie, features
        refuse_lora(train, "Recurrent")
        self.trained, self.value_head = train, value_head

    def bind(self, facts: TaskFacts) -> None:
        refuse_backspace(facts.tokenizer, "Recurrent", "its memory of a word cannot be undone")
        vocabulary = len(facts.tokenizer)
        self.bos, self.eos = begin_token(facts.tokenizer, "Recurrent"), end_token(facts.tokenizer)
        self.words = nn.Embedding(vocabulary, self.embedding)
        kind = nn.LSTM if self.cell == "lstm" else nn.GRU
        between = self.share if self.layers > 1 else 0.0
        self.cells = kind(self.embedding, self.hidden, self.layers, batch_first=True, dropout=between)
        self.drop = nn.Dropout(self.share)
        self.output = nn.Linear(self.hidden, vocabulary)
        if self.tie:
            self.output.weight = self.words.weight
        example = facts.example.features.get(self.features)
        parts = 2 if self.cell == "lstm" else 1
        self.first = None if example is None else nn.Linear(example.shape[-1], parts * self.layers * self.hidden)
        for weight in self.parameters() if self.spread else ():
            nn.init.normal_(weight, std=self.spread or 0)
        freeze_the_rest(self, self.trained, list(self.output.parameters()), self._blocks(), "Recurrent")
        self.values = make_values(self.value_head, self.hidden, "Recurrent")
        accept_older_weights(self)
        self.train(self.training)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        tokens = rollout.tokens[:, :-1].masked_fill(
            ~length_mask(rollout.lengths, max(rollout.tokens.shape[1] - 1, 0)), 0
        )
        inputs = torch.nn.functional.pad(tokens, (1, 0), value=self.bos)[:, : rollout.tokens.shape[1]]
        hidden, _ = self._read(inputs, self._after_prompt(rollout.prompts))
        return spoken(rollout, hidden, self._head, self.eos, self.values)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        first = torch.full_like(prompts.lengths, self.bos)
        return self.step(first, RecurrentState(self._after_prompt(prompts)))

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, RecurrentState)
        hidden, memory = self._read(tokens[:, None], state.memory)
        return self._head.logits(hidden[:, 0]), RecurrentState(memory)

    @property
    def _head(self) -> Head:
        return Head(self.output.weight, self.output.bias)

    def _blocks(self) -> list[list[nn.Parameter]]:
        named = list(self.cells.named_parameters())
        return [[weight for name, weight in named if name.endswith(f"_l{layer}")] for layer in range(self.layers)]

    def _read(self, tokens: Int[Tensor, "B L"], memory: Memory) -> tuple[Float[Tensor, "B L H"], Memory]:
        with differentiable(self):
            read, memory = self.cells(self.drop(self.words(tokens)), self._packed(memory))
        return self.drop(read), self._unpacked(memory)

    def _after_prompt(self, prompts: Prompts) -> Memory:
        """Memory after features and prompt; each distinct prompt is read once, and padding is never read."""
        distinct, index = prompts.distinct()
        memory = self._initial(distinct)
        asked = distinct.lengths.nonzero().squeeze(1)  # rows with a prompt; the others keep their initial memory
        if len(asked):
            lengths = distinct.lengths[asked]
            tokens = distinct.tokens[asked].masked_fill(~length_mask(lengths, distinct.tokens.shape[1]), 0)
            words = pack_padded_sequence(self.drop(self.words(tokens)), lengths.cpu(), True, enforce_sorted=False)
            with differentiable(self):
                _, read = self.cells(words, self._packed(tuple(part[:, asked] for part in memory)))
            pairs = zip(memory, self._unpacked(read), strict=True)
            memory = tuple(old.index_copy(1, asked, new.to(old.dtype)) for old, new in pairs)
        return tuple(spread(part.transpose(0, 1), index).transpose(0, 1).contiguous() for part in memory)

    def _initial(self, prompts: Prompts) -> Memory:
        parts = 2 if self.cell == "lstm" else 1
        if self.first is None:
            zeros = self.words.weight.new_zeros(self.layers, len(prompts), self.hidden)
            return (zeros,) * parts
        flat = torch.tanh(self.first(self._pooled(prompts)))
        split = flat.view(len(prompts), parts, self.layers, self.hidden).permute(1, 2, 0, 3)
        return tuple(part.contiguous() for part in split)

    def _pooled(self, prompts: Prompts) -> Float[Tensor, "B D"]:
        if self.features not in prompts.features:
            raise ValueError(
                f"Recurrent: got prompts with features {sorted(prompts.features)}; expected {self.features!r}, which "
                "the task's example had. Give every batch the same features."
            )
        seen = prompts.features[self.features]
        if seen.ndim == 2:
            return seen
        lengths = prompts.features.get(f"{self.features.removesuffix('s')}_lengths")
        if lengths is None:
            return seen.mean(1)
        real = length_mask(lengths, seen.shape[1])[:, :, None]
        return seen.masked_fill(~real, 0).sum(1) / lengths.clamp(min=1)[:, None]

    def _packed(self, memory: Memory) -> Tensor | Memory:
        return memory if self.cell == "lstm" else memory[0]

    def _unpacked(self, memory: Tensor | Memory) -> Memory:
        return memory if isinstance(memory, tuple) else (memory,)

"""A small network that reads an episode and says what is still to come of it: its length, or its reward."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lrl_core.types import Prompts, Rollout


class Estimator(nn.Module):
    """A GRU over the episode's tokens with one number as output after each of them.

    Args:
        vocabulary: Number of token ids.
        embedding: Width of the word vectors.
        hidden: Width of the state.
        read_prompt: Whether the prompt's tokens are read first.
    """

    def __init__(self, vocabulary: int, embedding: int, hidden: int, read_prompt: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, embedding)
        self.cell = nn.GRU(embedding, hidden, batch_first=True)
        self.output = nn.Linear(hidden, 1)
        self.read_prompt = read_prompt

    def start(self, prompts: Prompts) -> Float[Tensor, "B H"]:
        """The state before the first token."""
        empty = self.output.weight.new_zeros(len(prompts), self.cell.hidden_size)
        if not self.read_prompt or prompts.tokens.shape[1] == 0:
            return empty
        states = self._read(prompts.tokens, empty)
        last = (prompts.lengths - 1).clamp(min=0)
        after = states[torch.arange(len(prompts), device=last.device), last]
        return torch.where(prompts.lengths[:, None] > 0, after, empty)

    def advance(self, tokens: Int[Tensor, " B"], state: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        """The state after one more token."""
        return self._read(tokens[:, None], state)[:, 0]

    def candidates(self, tokens: Int[Tensor, "B C"], state: Float[Tensor, "B H"]) -> Float[Tensor, "B C"]:
        """The estimate after each of C possible next tokens."""
        count = tokens.shape[1]
        after = self.advance(tokens.flatten(), state.repeat_interleave(count, 0))
        return self.output(after).view(-1, count)

    def forward(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        """The estimate after each token of whole episodes."""
        return self.output(self._read(rollout.tokens, self.start(rollout.prompts))).squeeze(2)

    def _read(self, tokens: Int[Tensor, "B L"], state: Float[Tensor, "B H"]) -> Float[Tensor, "B L H"]:
        return self.cell(self.words(tokens.clamp(min=0)), state[None].contiguous())[0]

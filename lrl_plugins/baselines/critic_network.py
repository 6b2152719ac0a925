"""The network of a critic of actions: what it is shown in place of the prompt, and a small one of its own."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lrl_core.interfaces import Component, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_core.vocab import Head

Reads = Literal["answer", "prompt", "both"]
"""What a critic sees beside the episode: the human answer, the prompt, or the prompt and then the answer."""


class AttentionReader(Component):
    """A GRU over the episode that looks at all of what it is shown before each token.

    What it is shown is read by a bidirectional GRU; attention over its states is bilinear and comes after the episode's
    cell (Luong et al. 2015), so that the first token already has it. The output, a number for every token of the
    vocabulary, is 0 at first.

    Args:
        embedding: Width of the word vectors.
        hidden: Width of the states; even.
    """

    def __init__(self, embedding: int = 64, hidden: int = 128) -> None:
        super().__init__()
        if embedding < 1 or hidden < 2 or hidden % 2:
            raise ValueError(
                f"Critic: got embedding {embedding} and hidden {hidden}; expected numbers >= 1, and an even hidden, of "
                "which each direction of reading has half. Correct the recipe."
            )
        self.embedding, self.hidden = embedding, hidden

    def bind(self, facts: TaskFacts) -> None:
        vocabulary, half = len(facts.tokenizer), self.hidden // 2
        self.bos = max(facts.tokenizer.bos, 0)
        self.words = nn.Embedding(vocabulary, self.embedding)
        self.encoder = nn.GRU(self.embedding, half, batch_first=True, bidirectional=True)
        self.first = nn.Linear(self.hidden, self.hidden)
        self.cell = nn.GRU(self.embedding, self.hidden, batch_first=True)
        self.match = nn.Linear(self.hidden, self.hidden, bias=False)
        self.join = nn.Linear(2 * self.hidden, self.hidden)
        self.output = nn.Linear(self.hidden, vocabulary)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        """Read whole episodes in one pass; the head has one number for every token of the vocabulary."""
        asked, lengths = _at_least_one(rollout.prompts)
        real = length_mask(lengths, asked.shape[1])
        # cuDNN refuses the backward pass of cells in eval mode, in which drawn episodes are read.
        with torch.backends.cudnn.flags(enabled=self.training or not torch.is_grad_enabled()):
            states = self._read(asked, lengths)
            mean = states.masked_fill(~real[:, :, None], 0).sum(1) / lengths[:, None]
            own, _ = self.cell(self.words(self._before(rollout)), torch.tanh(self.first(mean))[None])
        scores = (self.match(own) @ states.transpose(1, 2)).masked_fill(~real[:, None], -torch.inf)
        seen = scores.softmax(2) @ states
        hidden = torch.tanh(self.join(torch.cat([own, seen], 2)))
        return PolicyOutput(rollout, hidden, Head(self.output.weight, self.output.bias))

    def _read(self, tokens: Int[Tensor, "B U"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B U D"]:
        packed = pack_padded_sequence(self.words(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=tokens.shape[1])[0]

    def _before(self, rollout: Rollout) -> Int[Tensor, "B T"]:
        """The token before each place."""
        tokens = torch.nn.functional.pad(rollout.tokens[:, :-1], (1, 0), value=self.bos)
        # Where the padding id is no id of the vocabulary, any other will do: no chosen token stands behind it.
        return tokens.clamp(min=0)[:, : rollout.tokens.shape[1]]


def _at_least_one(prompts: Prompts) -> tuple[Int[Tensor, "B U"], Int[Tensor, " B"]]:
    """Tokens and lengths, with one token 0 where there is none, so that every row can be attended to."""
    tokens, lengths = prompts.tokens, prompts.lengths
    if tokens.shape[1] == 0:
        tokens = torch.nn.functional.pad(tokens, (0, 1))
    return tokens.masked_fill(~length_mask(lengths, tokens.shape[1]), 0), lengths.clamp(min=1)


def shown(rollout: Rollout, reads: Reads, separator: int) -> Rollout:
    """The same episodes after what the critic sees instead of the prompt.

    Args:
        rollout: The episodes.
        reads: What it sees.
        separator: Token between prompt and answer, where it sees both.
    """
    if reads == "prompt":
        return rollout
    prompts = rollout.prompts
    if prompts.targets is None or prompts.target_lengths is None:
        raise ValueError(
            f"Critic: got reads: {reads} and prompts without human answers (Prompts.targets is None); expected one for "
            "each prompt, as the critic is told what would have been right. Use a task whose data has answers, or set "
            "reads: prompt."
        )
    tokens, lengths = prompts.targets, prompts.target_lengths
    if reads == "both":
        tokens, lengths = _one_after_the_other(prompts, tokens, lengths, separator)
    # A network may read equal prompts once: here they are equal where prompt and answer are.
    real = tokens.masked_fill(~length_mask(lengths, tokens.shape[1]), -1)
    names = torch.cat([prompts.group[:, None], lengths[:, None], real], 1)
    group = torch.unique(names, dim=0, return_inverse=True)[1]
    return replace(rollout, prompts=replace(prompts, tokens=tokens, lengths=lengths, group=group))


def _one_after_the_other(
    prompts: Prompts, answers: Int[Tensor, "B U"], lengths: Int[Tensor, " B"], separator: int
) -> tuple[Int[Tensor, "B W"], Int[Tensor, " B"]]:
    whole = torch.nn.functional.pad(prompts.tokens, (0, answers.shape[1] + 1))
    place = torch.arange(whole.shape[1], device=whole.device) - prompts.lengths[:, None]
    whole = torch.where(place == 0, separator, whole)
    behind = (place > 0) & (place <= lengths[:, None])
    copied = answers.gather(1, (place - 1).clamp(0, answers.shape[1] - 1))
    return torch.where(behind, copied, whole), prompts.lengths + 1 + lengths

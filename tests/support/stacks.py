"""A table policy that takes tokens back: its logits depend on the last token that is left, and on nothing else."""

import torch
from torch import nn

from lrl_core.backspace import follows_of
from lrl_core.interfaces import Policy, State
from lrl_core.types import PolicyOutput
from lrl_core.vocab import Head


class Stacks(State):
    """What is left of each row's line."""

    def __init__(self, lines):
        self.lines = lines

    def select(self, rows):
        return Stacks([list(self.lines[row]) for row in rows.tolist()])


class StackTable(Policy):
    """Line 0 of the table where nothing is left, line 1 + k after token k.

    Args:
        table: Logits [1 + V, V].
        eos: Id that ends an episode.
        backspace: Id that takes one back.
    """

    def __init__(self, table, eos, backspace):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table, dtype=torch.float64).clone())
        self.eos, self.backspace = eos, backspace

    def forward(self, rollout):
        follows = follows_of(rollout.tokens, rollout.lengths, self.backspace)
        top = rollout.tokens.gather(1, follows.clamp(min=0)).clamp(min=0)
        line = torch.where(follows < 0, 0, top + 1)
        one_hot = nn.functional.one_hot(line, len(self.table)).to(self.table.dtype)
        return PolicyOutput(rollout, one_hot, Head(self.table.t(), None), self.eos)

    def begin(self, prompts):
        return self._look_up([[] for _ in range(len(prompts))])

    def step(self, tokens, state):
        for line, token in zip(state.lines, tokens.tolist(), strict=True):
            if token != self.backspace:
                line.append(token)
            elif line:
                line.pop()
        return self._look_up(state.lines)

    def _look_up(self, lines):
        return self.table[[line[-1] + 1 if line else 0 for line in lines]], Stacks(lines)

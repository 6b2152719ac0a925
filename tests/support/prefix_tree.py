"""Worlds in which every prefix may be an answer, a policy with a line of logits per prefix, and the exact posterior."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch

from lrl_core.interfaces import Policy, Reward, State, bind_all
from lrl_core.sampling import Sampling
from lrl_core.testing.toy import ToyTokenizer, toy_facts
from lrl_core.types import Experience, PolicyOutput, Prompts, RewardSignal, Rollout
from lrl_core.vocab import Head


class Tree:
    """Answers of at most `longest` symbols among ids 0 .. symbols - 1; the end token is the id after them.

    Args:
        symbols: How many symbols there are.
        longest: The longest answer, the end token not counted.
        log_r: Log R of an answer (a tuple of ids), given the prompt's number.
        prompts: How many prompts there are.
    """

    def __init__(self, symbols: int, longest: int, log_r: Callable[[int, tuple[int, ...]], float], prompts: int = 1):
        self.symbols, self.longest, self.eos = symbols, longest, symbols
        self.answers = [z for n in range(longest + 1) for z in product(range(symbols), repeat=n)]  # by node number
        self.log_r = torch.tensor([[log_r(x, z) for z in self.answers] for x in range(prompts)], dtype=torch.float64)

    @property
    def facts(self):
        return replace(toy_facts(ToyTokenizer(self.symbols + 1, eos=self.eos)), example=self.prompts)

    @property
    def prompts(self) -> Prompts:
        """Every prompt once; its one token is its number."""
        number = torch.arange(len(self.log_r))
        return Prompts(number[:, None], torch.ones_like(number), number)

    @property
    def sampling(self) -> Sampling:
        """Drawing with a forced end."""
        return Sampling(eos=self.eos, limit=self.longest + 1)

    def nodes(self, tokens):
        """Number of the prefix after 0 .. T tokens [B, T + 1]; it stays where it is after the end."""
        found = [torch.zeros_like(tokens[:, 0])]
        over = torch.zeros_like(tokens[:, 0], dtype=torch.bool)
        for column in tokens.unbind(1):
            over = over | (column < 0) | (column >= self.eos)
            deeper = found[-1] * self.symbols + 1 + column
            found.append(torch.where(over | (deeper >= len(self.answers)), found[-1], deeper))
        return torch.stack(found, 1)

    def posterior(self, temperature=1.0):
        """Probability of every answer [prompts, nodes], by enumeration."""
        return (self.log_r / temperature).softmax(1)

    def best(self, temperature=1.0):
        """Logits of the policy that draws the posterior when its end is forced."""
        mass = (self.log_r / temperature).exp()
        table = torch.zeros(*self.log_r.shape, self.symbols + 1, dtype=torch.float64)
        below = mass.clone()
        for node in reversed(range(len(self.answers))):
            table[:, node, self.eos] = mass[:, node].log()
            for symbol in range(self.symbols):
                child = node * self.symbols + 1 + symbol
                if child < len(self.answers):
                    table[:, node, symbol] = below[:, child].log()
                    below[:, node] += below[:, child]
        return table

    def drawn(self, table):
        """Probability of every answer [prompts, nodes] under a table of logits with the end forced at the limit."""
        chances = table.softmax(-1)
        reach = [torch.ones_like(self.log_r[:, 0])]
        for node in range(1, len(self.answers)):
            parent, symbol = (node - 1) // self.symbols, (node - 1) % self.symbols
            reach.append(reach[parent] * chances[:, parent, symbol])
        last = torch.tensor([len(z) == self.longest for z in self.answers])
        return torch.stack(reach, 1) * torch.where(last, 1.0, chances[:, :, self.eos])

    def rollout(self, lines, prompts=None, sampling=None):
        """These answers (tuples of ids) as episodes that ended, of prompt 0 or of these."""
        width = max(map(len, lines)) + 1
        tokens = torch.tensor([[*z, self.eos, *[0] * (width - 1 - len(z))] for z in lines])
        lengths = torch.tensor([len(z) + 1 for z in lines])
        mask = torch.arange(width) < lengths[:, None]
        asked = self.prompts.select(torch.tensor(prompts or [0] * len(lines)))
        nothing = torch.zeros(tokens.shape, dtype=torch.float64)
        ended = torch.ones(len(lines), dtype=torch.bool)
        return Rollout(asked, tokens, lengths, mask, nothing, ended, sampling or self.sampling)

    def experience(self, lines, prompts=None, sampling=None):
        rollout = self.rollout(lines, prompts, sampling)
        return Experience(rollout, TreeReward(self).score(rollout))

    def bound(self, part):
        bind_all(part, self.facts)
        return part


class TreeReward(Reward):
    """Log R of every prefix of an episode."""

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self.tree = tree

    def score(self, rollout: Rollout) -> RewardSignal:
        by_prefix = self.tree.log_r[rollout.prompts.tokens, self.tree.nodes(rollout.tokens)]
        return RewardSignal(by_prefix[:, -1], by_prefix=by_prefix)


class TreeState(State):
    def __init__(self, prompt, prefix):
        self.prompt, self.prefix = prompt, prefix

    def select(self, rows):
        return TreeState(self.prompt[rows], self.prefix[rows])


class TreePolicy(Policy):
    """A line of logits for every prompt and prefix.

    Args:
        tree: The world.
        table: Logits [prompts, nodes, symbols + 1]; None: uniform.
    """

    def __init__(self, tree: Tree, table=None) -> None:
        super().__init__()
        shape = (*tree.log_r.shape, tree.symbols + 1)
        self.tree = tree
        self.table = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64) if table is None else table.clone())

    def forward(self, rollout: Rollout) -> PolicyOutput:
        nodes = self.tree.nodes(rollout.tokens)[:, :-1]
        head = Head(torch.eye(self.table.shape[2], dtype=torch.float64), None)
        return PolicyOutput(rollout, self.table[rollout.prompts.tokens, nodes], head, self.tree.eos)

    def begin(self, prompts: Prompts):
        return self._at(TreeState(prompts.tokens[:, 0], torch.zeros_like(prompts.lengths)[:, None][:, :0]))

    def step(self, tokens, state):
        return self._at(TreeState(state.prompt, torch.cat([state.prefix, tokens[:, None]], 1)))

    def _at(self, state):
        if state.prefix.shape[1] == 0:
            return self.table[state.prompt, 0], state
        return self.table[state.prompt, self.tree.nodes(state.prefix)[:, -1]], state


def two_letters() -> Tree:
    """T-C: a, b and the end, at most two letters; log R is that of p(a) = .5, p(b) = .2, p(end) = .3 everywhere."""
    return Tree(2, 2, lambda _, z: math.log(0.3) + sum(math.log((0.5, 0.2)[token]) for token in z))


def four_letters() -> Tree:
    """Four letters, at most four of them, two prompts: 341 answers each, whose log R were drawn once."""
    values = torch.randn(2, 341, generator=torch.Generator().manual_seed(7), dtype=torch.float64).tolist()

    def log_r(prompt, answer):
        node = 0
        for token in answer:
            node = node * 4 + 1 + token
        return 0.7 * values[prompt][node] - 0.7 * len(answer)

    return Tree(4, 4, log_r, prompts=2)

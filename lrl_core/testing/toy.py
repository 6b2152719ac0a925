"""Small worlds in which every episode can be listed, so that an expectation is a sum and not an estimate."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lrl_core.interfaces import Baseline, Decoder, Policy, Reward, Sampler, State, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import PolicyOutput, Prompts, RewardSignal, Rollout
from lrl_core.vocab import Head


class ToyTokenizer(Tokenizer):
    """Letters a, b, c, ... for ids 0, 1, 2, ...; no id is special unless `eos` names one. An episode begins after a.

    Args:
        size: Number of ids.
        eos: Id that ends a line; -1 (no id at all) where lines have a fixed length.
    """

    pad, bos = -1, 0

    def __init__(self, size: int, eos: int = -1) -> None:
        self.size, self.eos = size, eos

    def __len__(self) -> int:
        return self.size

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("a") + i) for i in ids if i not in (self.eos, self.pad))

    @property
    def never_drawn(self) -> tuple[int, ...]:
        return ()


class TableState(State):
    """Which line of the table each row stands on."""

    def __init__(self, line: Int[Tensor, " B"]) -> None:
        self.line = line

    def select(self, rows: Tensor) -> "TableState":
        return TableState(self.line[rows])


class TablePolicy(Policy):
    """A table of logits: line 0 before the first token, line 1 + k after token k. The prompt is not read.

    Args:
        table: Logits [lines, V]; lines = 1 + V (a bigram model) or 1 (the same distribution everywhere).
        eos: Id that ends an episode, if one does.
    """

    def __init__(self, table: Sequence[Sequence[float]] | Tensor, eos: int | None = None) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table, dtype=torch.float64).clone())
        self.eos = eos

    def forward(self, rollout: Rollout) -> PolicyOutput:
        before = torch.nn.functional.pad(rollout.tokens[:, :-1].clamp(min=0) + 1, (1, 0))
        one_hot = torch.nn.functional.one_hot(self._line(before), len(self.table)).to(self.table.dtype)
        return PolicyOutput(rollout, one_hot, Head(self.table.t(), None), self.eos)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], TableState]:
        return self._look_up(torch.zeros_like(prompts.lengths))

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], TableState]:
        return self._look_up(self._line(tokens.clamp(min=0) + 1))

    def _line(self, line: Tensor) -> Tensor:
        return line if len(self.table) > 1 else torch.zeros_like(line)

    def _look_up(self, line: Tensor) -> tuple[Tensor, TableState]:
        return self.table[line], TableState(line)


class TableReward(Reward):
    """Pays what a function says of an episode's tokens.

    Args:
        pays: From the tokens of one episode to its reward.
    """

    def __init__(self, pays: Callable[[tuple[int, ...]], float]) -> None:
        super().__init__()
        self.pays = pays

    def score(self, rollout: Rollout) -> RewardSignal:
        pairs = zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)
        paid = [self.pays(tuple(tokens[:length])) for tokens, length in pairs]
        return RewardSignal(torch.tensor(paid, dtype=torch.float64))


class ToySampler(Sampler):
    """Gives a baseline what it may ask for, without a training run.

    Args:
        policy: Who plays.
        decoder: The training decoder.
        reward: Who judges.
        baseline: The recipe's baseline, for parts that look at it.
        reference: The recipe's reference policy, for parts that look at it.
    """

    def __init__(
        self,
        policy: Policy,
        decoder: Decoder,
        reward: Reward,
        baseline: Baseline | None = None,
        reference: nn.Module | None = None,
    ) -> None:
        self.policy, self.decoder, self.reward = policy, decoder, reward
        self.baseline, self.reference = baseline, reference

    def roll_out(self, prompts: Prompts, decoder: Decoder | None = None) -> tuple[Rollout, RewardSignal]:
        rollout = (decoder or self.decoder).decode(self.policy, prompts)
        assert self.reward is not None
        return rollout, self.reward.score(rollout)

    @property
    def delayed(self) -> Policy | None:
        return None

    def draw(self, prompts: Prompts, decoder: Decoder | None = None) -> Rollout:
        return (decoder or self.decoder).decode(self.policy, prompts)

    def complete(
        self, prompts: Prompts, openings: Sequence[Sequence[int]], policy: Policy | None = None
    ) -> tuple[Rollout, RewardSignal]:
        rollout = self.decoder.complete(policy or self.policy, prompts, openings)
        assert self.reward is not None
        return rollout, self.reward.score(rollout)


def toy_prompts(count: int = 1, same: bool = True) -> Prompts:
    """Empty prompts: one group (`same`) or a group each."""
    group = torch.zeros(count, dtype=torch.long) if same else torch.arange(count)
    return Prompts(torch.zeros(count, 0, dtype=torch.long), torch.zeros(count, dtype=torch.long), group)


def toy_facts(tokenizer: Tokenizer) -> TaskFacts:
    """What a toy task knows."""
    return TaskFacts(tokenizer=tokenizer, references=(), example=toy_prompts())


TREE_TABLE = [[0.2, -0.1, 0.4], [0.3, 0.0, -0.2], [-0.5, 0.1, 0.2], [0.0, 0.6, -0.3]]
TREE_REWARD = [[1.0, 0.0, 0.5], [0.0, 2.0, 1.0], [0.3, 0.7, 3.0]]
TREE_GRADIENT = [
    [-0.122999, 0.062634, 0.060365],
    [0.063968, -0.059152, -0.004816],
    [-0.060507, 0.078212, -0.017705],
    [-0.088642, -0.077169, 0.165810],
]
"""Exact policy gradient of the tree world's expected reward 0.919557, line by line of the table."""


def tree_world() -> tuple[TablePolicy, TableReward]:
    """Two tokens of three, no EOS, a reward for each of the nine episodes."""
    return TablePolicy(TREE_TABLE), TableReward(lambda tokens: TREE_REWARD[tokens[0]][tokens[1]])


def stop_world() -> tuple[TablePolicy, TableReward]:
    """Token a or EOS with P(a) = 0.6 in every state, at most two tokens; E pays 1, aE 0.5, aa 2.

    Only the logit of a is the world's parameter; the exact gradient of the expected reward with respect to it is 0.312.
    """
    log_odds = float(torch.tensor(0.6 / 0.4, dtype=torch.float64).log())
    paid = {(1,): 1.0, (0, 1): 0.5, (0, 0): 2.0}
    return TablePolicy([[log_odds, 0.0]], eos=1), TableReward(lambda tokens: paid[tokens])


def every_episode(policy: TablePolicy, length: int) -> tuple[Rollout, Float[Tensor, " N"]]:
    """All episodes of at most `length` tokens, and their probabilities (which add up to 1)."""
    vocabulary, eos = policy.table.shape[1], policy.eos
    lines = {_until(tokens, eos) for tokens in product(range(vocabulary), repeat=length)}
    ordered = sorted(lines)
    lengths = torch.tensor([len(line) for line in ordered])
    tokens = torch.tensor([[*line, *[0] * (length - len(line))] for line in ordered])
    rollout = Rollout(
        prompts=toy_prompts(len(ordered)),
        tokens=tokens,
        lengths=lengths,
        action_mask=length_mask(lengths, length),
        logprobs=torch.zeros(tokens.shape, dtype=torch.float64),
        terminated=torch.tensor([line[-1] == eos for line in ordered]),
        sampling=Sampling(),
    )
    logprobs = policy(rollout).logprobs.detach()
    rollout = Rollout(**{**vars(rollout), "logprobs": logprobs})
    return rollout, logprobs.sum(1).exp()


def _until(tokens: tuple[int, ...], eos: int | None) -> tuple[int, ...]:
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens

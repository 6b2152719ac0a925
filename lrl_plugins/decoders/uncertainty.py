"""Decoding that prefers what the policy is unsure of: a mean over dropout passes plus a share of their variance."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import log
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.episodes import Choice
from lrl_core.interfaces import Environment, Policy, State
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.decoders.limits import Constraints, LimitedDecoder
from lrl_plugins.decoders.modes import dropouts, only, with_own_logprobs
from lrl_plugins.decoders.sample import Greedy

Moment = Literal["var", "std"]


def optimistic(passes: Float[Tensor, "B N V"], beta: float, moment: Moment = "var") -> Float[Tensor, "B V"]:
    """Mean logit over N passes plus beta times their variance (or its root), both over N (Abbasnejad 2019).

    Args:
        passes: Logits of N readings with dropout.
        beta: How much doubt is worth.
        moment: `var` or `std`.
    """
    mean = passes.mean(1)
    variance = passes.var(1, correction=0).nan_to_num()  # a token that every pass forbids has no variance
    return mean + beta * (variance if moment == "var" else variance.sqrt())


class Uncertainty(LimitedDecoder):
    """Takes the token with the largest mean + beta x variance of its logit over dropout passes (Abbasnejad 2019, UCB).

    The passes stand side by side in one state of N x B rows. Only dropout modules are switched on, and tokens that the
    tokenizer never draws are never taken, however unsure the policy is of them. The returned log-probabilities are the
    policy's own, without dropout; the episodes are not drawn from them, so policy gradients may not learn from them.

    Args:
        passes: N, readings with dropout per token; >= 2.
        beta: Worth of a unit of doubt; 0 takes the best mean.
        schedule: `constant` keeps beta; `log` multiplies it by log(1 + t) at the t-th token, t = 1, 2, ...
        moment: What doubt is: the variance of the logits (`var`) or its root (`std`).
        masks: `step` draws dropout masks anew for each token (cheap); `episode` keeps each pass' masks over an episode
            (one for reading the prompt, one for every later token), so that a pass is one network; finished episodes
            then stay in the batch. Dropout of attention weights changes shape with the length and is drawn anew.
        sample: Draw from the softmax of mean + beta x variance instead of taking the largest.
        max_length: An episode is cut after this many tokens, EOS counted.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never taken, besides those the tokenizer names (padding, begin, unknown).
        constraints: What every episode must keep: no repeated n-gram, an opening, an end; None for nothing.
    """

    def __init__(
        self,
        passes: int = 10,
        beta: float = 1.0,
        schedule: Literal["constant", "log"] = "constant",
        moment: Moment = "var",
        masks: Literal["step", "episode"] = "step",
        sample: bool = False,
        max_length: int = 20,
        min_length: int = 0,
        banned: tuple[int, ...] = (),
        constraints: Constraints | None = None,
    ) -> None:
        super().__init__(max_length, min_length, banned, many=1, constraints=constraints)
        if passes < 2:
            raise ValueError(f"Uncertainty: got {passes} passes; expected at least 2, or there is no variance.")
        self.passes, self.beta, self.schedule, self.moment = passes, beta, schedule, moment
        self.masks, self.sample = masks, sample

    def greedy(self) -> Greedy:
        return Greedy.bound(self)

    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        noise = dropouts(policy)
        if not noise:
            raise ValueError(
                f"Uncertainty: {type(policy).__name__} has no dropout module with a share above 0; expected at least "
                "one, or all passes are equal. Give the policy dropout, or use Greedy."
            )
        seed = int(torch.randint(2**31, ())) if self.masks == "episode" else None
        with only(policy, noise):
            rollout = self.play(_Passes(policy, self, seed), prompts, self.choose, environment)
        return with_own_logprobs(policy, rollout)

    def choose(self, logits: Float[Tensor, "b V"], position: Int[Tensor, " b"]) -> Choice:
        """The token of the largest score, or one drawn by it; the log-probability is filled in later."""
        scaled = self.sampling.scale(logits, position)
        tokens = torch.multinomial(scaled.softmax(1), 1).squeeze(1) if self.sample else scaled.argmax(1)
        return tokens, torch.zeros_like(scaled[:, 0])

    def score(self, passes: Float[Tensor, "BN V"], t: int) -> Float[Tensor, "B V"]:
        """What is maximised at the token with index t."""
        beta = self.beta * (log(2 + t) if self.schedule == "log" else 1.0)
        return optimistic(passes.unflatten(0, (-1, self.passes)), beta, self.moment)


@dataclass(frozen=True)
class _PassState(State):
    """The state of N passes per episode, those of one episode side by side."""

    inner: State
    """The policy's: N rows for each of `total` episodes."""
    held: Int[Tensor, " B"]
    """Which of them are still played."""
    total: int
    """How many episodes the inner state has."""
    passes: int
    """N."""
    lazy: bool
    """Whether dropped episodes stay in the inner state, so that every row keeps its masks."""
    t: int = 0
    """Index of the next token."""

    def select(self, rows: Int[Tensor, " M"]) -> "_PassState":
        held = self.held[rows]
        if self.lazy and len(held.unique()) == len(held):
            return replace(self, held=held)
        lines = (held[:, None] * self.passes + torch.arange(self.passes, device=held.device)).flatten()
        new = torch.arange(len(held), device=held.device)
        return replace(self, inner=self.inner.select(lines), held=new, total=len(held))


class _Passes(Policy):
    """N readings of a policy that speak with one voice.

    Args:
        policy: With its dropout on.
        decoder: Says how the readings are combined.
        seed: Of the masks, where they stay the same over an episode; None draws them anew.
    """

    def __init__(self, policy: Policy, decoder: Uncertainty, seed: int | None) -> None:
        super().__init__()
        self.policy, self.score, self.passes, self.seed = policy, decoder.score, decoder.passes, seed

    def forward(self, rollout: Rollout) -> PolicyOutput:
        return self.policy(rollout)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        held = torch.arange(len(prompts), device=prompts.lengths.device)
        asked = prompts.select(held.repeat_interleave(self.passes))
        # Groups of their own: else a policy reads equal prompts once, and all passes share its masks.
        own = torch.arange(len(asked), device=held.device)
        with self._masks(held.device):
            logits, inner = self.policy.begin(replace(asked, group=own))
        return self.score(logits, 0), _PassState(inner, held, len(held), self.passes, self.seed is not None)

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, _PassState)
        said = tokens.new_zeros(state.total).index_copy(0, state.held, tokens)
        with self._masks(tokens.device):
            logits, inner = self.policy.step(said.repeat_interleave(self.passes), state.inner)
        after = replace(state, inner=inner, t=state.t + 1)
        return self.score(logits, after.t)[state.held], after

    @contextmanager
    def _masks(self, device: torch.device) -> Iterator[None]:
        """Inside, dropout draws what it drew the last time that the shapes were the same."""
        if self.seed is None:
            yield
            return
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            yield

"""Readers and writers that follow a rule: what a learnt one is compared with in simultaneous translation."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.episodes import Choice
from lrl_core.interfaces import Environment, Policy, State, TaskFacts
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.decoders.limits import LimitedDecoder
from lrl_plugins.decoders.modes import with_own_logprobs
from lrl_plugins.decoders.sample import Greedy

NOW = 1e6
"""A logit above all others: what the rule wants is taken, unless it cannot be chosen."""

Criterion = Literal["worse", "diff"]


@dataclass(frozen=True)
class Sight:
    """What a rule sees of each row before a token is chosen."""

    heard: Int[Tensor, " B"]
    """Source words heard so far."""
    written: Int[Tensor, " B"]
    """Target words begun so far."""
    just_read: Bool[Tensor, " B"]
    """Whether the last token was a READ."""
    before: Int[Tensor, " B"]
    """The word that would have been written before it; -1 for none."""
    worth: Float[Tensor, " B"]
    """Its log-probability then."""
    candidate: Int[Tensor, " B"]
    """The word that would be written now."""
    logprobs: Float[Tensor, "B V"]
    """Log-probabilities of all words now, READ left out."""


class RuledDecoder(LimitedDecoder):
    """The most probable word each time, and a READ wherever a rule wants one before a new word is begun.

    Args:
        max_length: An episode is cut after this many tokens, READs and EOS counted.
    """

    begins: Bool[Tensor, " V"]

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, 0, (), many=1)

    @abstractmethod
    def wants(self, sight: Sight) -> Bool[Tensor, " B"]:
        """Which rows read before they begin a new word."""

    def bind(self, facts: TaskFacts) -> None:
        super().bind(facts)
        self.begins = torch.tensor(words_begin(facts.tokenizer))

    def greedy(self) -> Greedy:
        return Greedy.bound(self)

    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        if environment is None or len(environment.closes) != 1:
            raise ValueError(
                f"{type(self).__name__}: nobody speaks in this task; expected one in which READ asks for the next word "
                "of a source. Use Greedy, or the task SimultaneousTranslation."
            )
        if not environment.reads:
            raise ValueError(
                f"{type(self).__name__}: here the words heard enter the line, where they cannot be told from those "
                "written; expected a policy that sees them by cross-attention. Set spoken: false, or use Greedy."
            )
        ruled = _Ruled(policy, self, environment)
        return with_own_logprobs(policy, self.play(ruled, prompts, self.choose, environment))

    def choose(self, logits: Float[Tensor, "b V"], position: Int[Tensor, " b"]) -> Choice:
        """What the rule wants; the log-probability is filled in later."""
        scaled = self.sampling.scale_(logits, position)
        return scaled.argmax(1), torch.zeros_like(scaled[:, 0])


class WaitK(RuledDecoder):
    """Reads k words, then writes one and reads one in turn (Ma et al. 2019, arXiv:1810.08398, eq. 1).

    Before the t-th word is begun, and before EOS, min(k + t - 1, |x|) source words have been heard. A word of several
    tokens is written in one go.

    Args:
        k: Words heard before the first is written; None waits for the whole sentence.
        max_length: An episode is cut after this many tokens, READs and EOS counted.
    """

    def __init__(self, k: int | None = 3, max_length: int = 100) -> None:
        super().__init__(max_length)
        if k is not None and k < 1:
            raise ValueError(f"WaitK: got k {k}; expected at least 1, or null to wait for the whole sentence.")
        self.k = k

    def wants(self, sight: Sight) -> Bool[Tensor, " B"]:
        """Rows that lag less than k words behind."""
        return torch.ones_like(sight.just_read) if self.k is None else sight.heard < self.k + sight.written


class WaitIf(RuledDecoder):
    """Reads one more word before it writes, and another one while that made it less sure (Cho and Esipova 2016).

    `worse`: while the probability of the word that it would have written has fallen. `diff`: while it would write
    another word. Here the word that it looks ahead at counts as heard: it reads at least one word per written one.

    Args:
        criterion: `worse` or `diff`.
        start: Words heard before the first comparison.
        max_length: An episode is cut after this many tokens, READs and EOS counted.
    """

    def __init__(self, criterion: Criterion = "worse", start: int = 1, max_length: int = 100) -> None:
        super().__init__(max_length)
        if criterion not in get_args(Criterion):
            raise ValueError(f"WaitIf: got criterion {criterion!r}; expected one of {get_args(Criterion)}. Choose one.")
        self.criterion, self.start = criterion, start

    def wants(self, sight: Sight) -> Bool[Tensor, " B"]:
        """Rows that have not looked ahead yet, or did not like what they saw."""
        if self.criterion == "diff":
            doubts = sight.before != sight.candidate
        else:
            now = sight.logprobs.gather(1, sight.before.clamp(min=0)[:, None]).squeeze(1)
            doubts = now < sight.worth
        return (sight.heard < self.start) | ~sight.just_read | doubts


@dataclass(frozen=True)
class _RuledState(State):
    """The policy's state, and what the rule needs to remember."""

    inner: State
    """The policy's."""
    heard: Int[Tensor, " B"]
    """Source words heard so far."""
    written: Int[Tensor, " B"]
    """Target words begun so far."""
    candidate: Int[Tensor, " B"]
    """The word that would have been written; -1 before the first."""
    worth: Float[Tensor, " B"]
    """Its log-probability."""

    def select(self, rows: Int[Tensor, " N"]) -> "_RuledState":
        kept = (self.heard[rows], self.written[rows], self.candidate[rows], self.worth[rows])
        return _RuledState(self.inner.select(rows), *kept)


class _Ruled(Policy):
    """A policy whose READs are those of a rule, and whose words are its own.

    Args:
        policy: Who writes.
        decoder: Whose rule.
        environment: Who speaks.
    """

    def __init__(self, policy: Policy, decoder: RuledDecoder, environment: Environment) -> None:
        super().__init__()
        self.policy, self.wants, self.sampling = policy, decoder.wants, decoder.sampling
        self.begins, (self.read,), self.shown = decoder.begins, environment.closes, environment.shown

    def forward(self, rollout: Rollout) -> PolicyOutput:
        return self.policy(rollout)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        logits, inner = self.policy.begin(prompts)
        nothing = torch.zeros_like(prompts.lengths)
        state = _RuledState(inner, nothing + self.shown, nothing, nothing - 1, nothing.float())
        return self._ruled(logits, state, nothing.bool())

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, _RuledState)
        logits, inner = self.policy.step(tokens, state.inner)
        read = tokens == self.read
        begun = (self.begins.to(tokens.device)[tokens] | (state.written == 0)) & ~read
        state = replace(state, inner=inner, heard=state.heard + read, written=state.written + begun)
        return self._ruled(logits, state, read)

    def _ruled(
        self, logits: Float[Tensor, "B V"], state: _RuledState, read: Bool[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B V"], State]:
        words = self.sampling.scale(logits, torch.zeros_like(state.heard))
        words[:, self.read] = -torch.inf
        logprobs, begins = words.log_softmax(1), self.begins.to(logits.device)
        # Who read on has done with the last word: no piece is added to it.
        left = read & (state.written > 0)
        words = words.masked_fill(left[:, None] & ~begins, -torch.inf)
        candidate = words.argmax(1)
        worth = logprobs.gather(1, candidate[:, None]).squeeze(1)
        sight = Sight(state.heard, state.written, read, state.candidate, state.worth, candidate, logprobs)
        wanted = self.wants(sight) & (begins[candidate] | (state.written == 0))
        words[:, self.read] = torch.where(wanted, NOW, -NOW)
        return words, replace(state, candidate=candidate, worth=worth.float())


def words_begin(tokenizer: Tokenizer) -> list[bool]:
    """For every id whether it begins a new word behind another one; the end token counts as one that does."""
    ids = range(len(tokenizer))
    special = {*tokenizer.never_drawn, tokenizer.eos}
    word = next((i for i in ids if i not in special and tokenizer.decode([i]).isalpha()), None)
    if word is None:
        return [True] * len(tokenizer)

    def text(*behind: int) -> str:
        return tokenizer.decode([word, *behind])

    # With a piece that goes on with a word behind it, a token that is nothing but a space begins one too.
    pieces = (i for i in ids if i not in special and text(i).isalpha() and text(i) != text())
    piece = tuple(islice(pieces, 1))
    return [i == tokenizer.eos or len(text(i, *piece).split()) == 2 for i in ids]

"""Greedy decoding in which an estimator has a say: every likely next token is weighed by what it would lead to."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.episodes import Choice
from lrl_core.interfaces import Environment, Learner, OptimizerFactory, Policy, State, TaskFacts
from lrl_core.types import Experience, Loss, PolicyOutput, Prompts, Rollout
from lrl_plugins.decoders.estimator import Estimator
from lrl_plugins.decoders.limits import Constraints, LimitedDecoder
from lrl_plugins.decoders.modes import with_own_logprobs
from lrl_plugins.decoders.sample import Greedy


class SteeredDecoder(LimitedDecoder, Learner):
    """Takes the token with the largest log-probability + bonus, where the bonus knows an estimate of what follows.

    The estimator learns by regression from the episodes that the run draws, beside the policy. The returned
    log-probabilities are the policy's own; bonuses are not added up along an episode.

    Args:
        candidates: How many tokens are weighed each time, the most probable ones; the end token always is.
        embedding: Width of the estimator's word vectors.
        hidden: Width of the estimator's state.
        read_prompt: Whether the estimator reads the prompt's tokens too.
        optimizer: Optimiser of the estimator.
        updates: Updates of the estimator per experience.
        max_length: An episode is cut after this many tokens, EOS counted.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never taken, besides those the tokenizer names.
        constraints: What every episode must keep; None for nothing.
    """

    estimator: Estimator

    def __init__(
        self,
        candidates: int,
        embedding: int,
        hidden: int,
        read_prompt: bool,
        optimizer: OptimizerFactory,
        updates: int,
        max_length: int,
        min_length: int,
        banned: tuple[int, ...],
        constraints: Constraints | None,
    ) -> None:
        super().__init__(max_length, min_length, banned, many=candidates, constraints=constraints)
        self.candidates, self.optimizer, self.updates = candidates, optimizer, updates
        self.embedding, self.hidden, self.read_prompt = embedding, hidden, read_prompt

    @abstractmethod
    def bonus(
        self, estimates: Float[Tensor, "B C"], ends: Bool[Tensor, "B C"], spoken: int, goal: Float[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        """What is added to the candidates' log-probabilities.

        Args:
            estimates: The estimator's after each candidate.
            ends: Which candidates are the end token.
            spoken: Tokens of the episode, the candidate counted.
            goal: What `goal` says of each prompt.
        """

    @abstractmethod
    def goal(self, prompts: Prompts) -> Float[Tensor, " B"]:
        """One number per prompt that `bonus` needs."""

    @abstractmethod
    def wanted(self, experience: Experience) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """What the estimator should say after each token of the rollout, and after which tokens that is known."""

    def bind(self, facts: TaskFacts) -> None:
        super().bind(facts)
        vocabulary = len(facts.tokenizer)
        if not 0 <= self.eos < vocabulary:
            raise ValueError(
                f"{type(self).__name__}: this task's tokenizer names no end token (it says {self.eos}); expected one, "
                "because episodes are steered towards their end. Use Greedy."
            )
        self.estimator = Estimator(vocabulary, self.embedding, self.hidden, self.read_prompt)

    def greedy(self) -> Greedy:
        return Greedy.bound(self)

    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        return with_own_logprobs(policy, self.play(_Steered(policy, self), prompts, self.choose, environment))

    def choose(self, logits: Float[Tensor, "b V"], position: Int[Tensor, " b"]) -> Choice:
        """The best candidate of each row; its log-probability is filled in later."""
        return logits.argmax(1), torch.zeros_like(logits[:, 0])

    def count(self, experience: Experience) -> Float[Tensor, ""]:
        return self.wanted(experience)[1].sum().float()

    def learn(self, experience: Experience) -> Loss:
        assert experience.rollout is not None
        wanted, known = self.wanted(experience)
        error = torch.where(known, self.estimator(experience.rollout) - wanted, 0)
        return Loss(error.pow(2).sum(), {"estimate_error": error.detach().abs().sum() / known.sum().clamp(min=1)})


@dataclass(frozen=True)
class _SteeredState(State):
    """Where the policy and the estimator stand."""

    inner: State
    """The policy's."""
    estimate: Float[Tensor, "B H"]
    """The estimator's."""
    history: Int[Tensor, "B T"]
    """The tokens so far."""
    goal: Float[Tensor, " B"]
    """What the decoder is told of each row's prompt."""

    def select(self, rows: Int[Tensor, " M"]) -> "_SteeredState":
        return _SteeredState(self.inner.select(rows), self.estimate[rows], self.history[rows], self.goal[rows])


class _Steered(Policy):
    """A policy whose logits are log pi + bonus for the C most probable tokens and the end token, -inf for the rest.

    Args:
        policy: Who speaks.
        decoder: Who steers.
    """

    def __init__(self, policy: Policy, decoder: SteeredDecoder) -> None:
        super().__init__()
        self.policy, self.decoder = policy, decoder

    def forward(self, rollout: Rollout) -> PolicyOutput:
        return self.policy(rollout)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        logits, inner = self.policy.begin(prompts)
        history = prompts.tokens.new_zeros(len(prompts), 0)
        decoder = self.decoder
        state = _SteeredState(inner, decoder.estimator.start(prompts), history, decoder.goal(prompts))
        return self._weighed(logits, state), state

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, _SteeredState)
        logits, inner = self.policy.step(tokens, state.inner)
        history = torch.cat([state.history, tokens[:, None]], 1)
        estimate = self.decoder.estimator.advance(tokens, state.estimate)
        after = replace(state, inner=inner, estimate=estimate, history=history)
        return self._weighed(logits, after), after

    def _weighed(self, logits: Float[Tensor, "B V"], state: _SteeredState) -> Float[Tensor, "B V"]:
        decoder, sampling, spoken = self.decoder, self.decoder.sampling, state.history.shape[1]
        position = torch.full((len(logits),), spoken, device=logits.device)
        logprobs = sampling.scale(logits, position, sampling.repeated(state.history)).log_softmax(1)
        best = logprobs.topk(min(decoder.candidates, logprobs.shape[1]), dim=1).indices
        candidates = torch.cat([best, torch.full_like(best[:, :1], decoder.eos)], 1)
        estimates = decoder.estimator.candidates(candidates, state.estimate)
        bonus = decoder.bonus(estimates, candidates == decoder.eos, spoken + 1, state.goal)
        weighed = logprobs.gather(1, candidates) + bonus.to(logprobs.dtype)
        return torch.full_like(logprobs, -torch.inf).scatter(1, candidates, weighed)

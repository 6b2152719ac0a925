"""What the decoders of this folder share: length limits, tokens that are never chosen, and constraints."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.episodes import Choice, Choose, play
from lrl_core.interfaces import Decoder, Environment, Policy, TaskFacts
from lrl_core.sampling import Sampling
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Prompts, Rollout


@dataclass(frozen=True)
class Constraints:
    """What every episode must keep, whatever the policy would like; log-probabilities stay exact.

    Args:
        no_repeat_ngram: No sequence of this many tokens occurs twice in an episode; 0 allows all, 1 forbids to repeat
            any token. A forced opening and an environment's words count, the prompt does not. The end token may always
            come; where nothing else would be left (it is too early to end), the repetition is allowed.
        opening: What every episode begins with, as text or as token ids. The policy reads these tokens as its own, but
            they teach nothing.
        end_at_limit: Whether the last token of an episode that reaches max_length is the end token, so that no episode
            is cut.
    """

    no_repeat_ngram: int = 0
    opening: tuple[int, ...] | str = ()
    end_at_limit: bool = False

    def opening_ids(self, tokenizer: Tokenizer, who: str) -> list[int]:
        """The opening as token ids.

        Args:
            tokenizer: The task's.
            who: Name of the decoder, for the error.
        """
        ids = tokenizer.encode(self.opening) if isinstance(self.opening, str) else list(self.opening)
        wrong = [i for i in ids if not 0 <= i < len(tokenizer) or i in tokenizer.never_drawn]
        if wrong:
            raise ValueError(
                f"{who}: the opening {self.opening!r} becomes token ids {ids}, of which {wrong} are no ordinary tokens "
                "of this task (unknown words, padding, or outside the vocabulary). Use words that the tokenizer knows."
            )
        return ids


class LimitedDecoder(Decoder):
    """A decoder with length limits; after `bind` it knows the tokens that end, fill and never occur.

    Args:
        max_length: An episode is cut after this many tokens, EOS counted.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never chosen, besides those the tokenizer names.
        many: Episodes or prefixes played per prompt.
        options: Temperature and truncation of the distribution.
        constraints: What every episode must keep; None for nothing.
    """

    pad: int
    eos: int
    sampling: Sampling
    opening: list[int]

    def __init__(
        self,
        max_length: int,
        min_length: int,
        banned: tuple[int, ...],
        many: int,
        options: Sampling | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if max_length < 1 or many < 1:
            raise ValueError(f"{name}: got max_length {max_length} and {many} episodes at a time; expected both >= 1.")
        if min_length > max_length:
            raise ValueError(f"{name}: min_length {min_length} is above max_length {max_length}; change one of them.")
        self.max_length, self.min_length, self.banned = max_length, min_length, tuple(banned)
        self.constraints = constraints or Constraints()
        self.options = replace(options or Sampling(), no_repeat_ngram=self.constraints.no_repeat_ngram)

    def bind(self, facts: TaskFacts) -> None:
        tokenizer, name = facts.tokenizer, type(self).__name__
        self.pad, self.eos = tokenizer.pad, tokenizer.eos
        banned = tuple(sorted({*tokenizer.never_drawn, *self.banned}))
        if len(banned) >= len(tokenizer):
            raise ValueError(f"{name}: all {len(tokenizer)} tokens are banned; leave some in `banned`.")
        ends = self.constraints.end_at_limit
        if ends and not 0 <= self.eos < len(tokenizer):
            raise ValueError(f"{name}: end_at_limit needs an end token, and this task has none. Set it to false.")
        limit = self.max_length if ends else None
        self.sampling = replace(self.options, banned=banned, min_length=self.min_length, eos=self.eos, limit=limit)
        self.opening = self.constraints.opening_ids(tokenizer, name)
        if len(self.opening) >= self.max_length:
            raise ValueError(
                f"{name}: the opening has {len(self.opening)} tokens and max_length is {self.max_length}, so that "
                "nothing is left to choose. Raise max_length or shorten the opening."
            )

    @property
    def plain(self) -> Sampling:
        """The same bans, without temperature and truncation: the policy's own distribution under these constraints."""
        return replace(self.sampling, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)

    def play(
        self,
        policy: Policy,
        prompts: Prompts,
        choose: Choose,
        environment: Environment | None,
        forced: Sequence[Sequence[int]] | None = None,
        samples: int | None = None,
    ) -> Rollout:
        """Play episodes within these limits, token by token.

        Args:
            policy: Whose episodes.
            prompts: One row per group of `samples` episodes.
            choose: Makes a token of logits.
            environment: Who answers; None for a monologue.
            forced: What each episode begins with (one list per episode); None for the opening of the constraints.
            samples: Episodes per prompt row; None: as many as the decoder draws.
        """
        if forced is None and self.opening:
            forced = [self.opening] * (len(prompts) * self.samples)
        return play(
            policy,
            prompts,
            choose,
            self.max_length,
            pad=self.pad,
            eos=self.eos,
            sampling=self.sampling,
            samples=self.samples if samples is None else samples,
            environment=environment,
            forced=forced,
        )


class StepwiseDecoder(LimitedDecoder):
    """A rule for the next token, played by the one loop; it can be made to begin with given tokens."""

    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        return self.play(policy, prompts, self.choose, environment)

    def complete(self, policy: Policy, prompts: Prompts, openings: Sequence[Sequence[int]]) -> Rollout:
        return self.play(policy, prompts, self.choose, None, openings, samples=1)

    @abstractmethod
    def choose(self, logits: Float[Tensor, "b V"], position: Int[Tensor, " b"]) -> Choice:
        """One token per row and its log-probability under the distribution that `sampling` describes."""


def refuse_environment(decoder: Decoder, environment: Environment | None) -> None:
    """Raise where somebody would have to answer every prefix of a beam."""
    if environment is not None:
        raise ValueError(
            f"{type(decoder).__name__} cannot play with an environment ({type(environment).__name__}): its prefixes "
            "would need an answer each. Use Greedy, Sample or BeamSearch."
        )

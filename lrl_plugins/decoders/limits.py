"""What the decoders of this folder share: length limits and tokens that are never chosen."""

from dataclasses import replace

from lrl_core.episodes import Choose, play
from lrl_core.interfaces import Decoder, Environment, Policy, TaskFacts
from lrl_core.sampling import Sampling
from lrl_core.types import Prompts, Rollout


class LimitedDecoder(Decoder):
    """A decoder with length limits; after `bind` it knows the tokens that end, fill and never occur.

    Args:
        max_length: An episode is cut after this many tokens, EOS counted.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never chosen, besides those the tokenizer names.
        many: Episodes or prefixes played per prompt.
        options: Temperature and truncation of the distribution.
    """

    pad: int
    eos: int
    sampling: Sampling

    def __init__(
        self, max_length: int, min_length: int, banned: tuple[int, ...], many: int, options: Sampling | None = None
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if max_length < 1 or many < 1:
            raise ValueError(f"{name}: got max_length {max_length} and {many} episodes at a time; expected both >= 1.")
        if min_length > max_length:
            raise ValueError(f"{name}: min_length {min_length} is above max_length {max_length}; change one of them.")
        self.max_length, self.min_length, self.banned = max_length, min_length, tuple(banned)
        self.options = options or Sampling()

    def bind(self, facts: TaskFacts) -> None:
        tokenizer = facts.tokenizer
        self.pad, self.eos = tokenizer.pad, tokenizer.eos
        banned = tuple(sorted({*tokenizer.never_drawn, *self.banned}))
        self.sampling = replace(self.options, banned=banned, min_length=self.min_length, eos=self.eos)

    def play(self, policy: Policy, prompts: Prompts, choose: Choose, environment: Environment | None) -> Rollout:
        """Play episodes within these limits, token by token."""
        return play(
            policy,
            prompts,
            choose,
            self.max_length,
            pad=self.pad,
            eos=self.eos,
            sampling=self.sampling,
            samples=self.samples,
            environment=environment,
        )

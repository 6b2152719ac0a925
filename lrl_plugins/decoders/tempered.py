"""Drawing at another temperature now and then, to see answers that the policy itself would seldom give."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from lrl_core.interfaces import Decoder, Environment, Policy, TaskFacts
from lrl_core.types import Prompts, Rollout
from lrl_plugins.decoders.limits import LimitedDecoder
from lrl_plugins.decoders.sample import Sample


class Tempered(Decoder):
    """Draws a batch at a random temperature with some chance, else at that of the inner decoder (Hu et al. 2024).

    A temperature is drawn once per batch of episodes. The rollout says which it was, so that log-probabilities are
    exact; an objective that learns from any episodes, such as SubTB, needs no weights for it.

    Args:
        decoder: Who draws, with its limits and constraints; None: Sample with its defaults.
        low: Lowest temperature, > 0.
        high: Highest temperature.
        share: Chance that a batch is tempered, in [0, 1].
    """

    def __init__(
        self, decoder: Decoder | None = None, low: float = 0.5, high: float = 2.0, share: float = 0.667
    ) -> None:
        super().__init__()
        inner = decoder or Sample()
        if not isinstance(inner, LimitedDecoder) or not inner.draws:
            raise ValueError(
                f"Tempered: the decoder {type(inner).__name__} does not draw from the policy; expected one with a "
                "temperature, such as Sample. Name it as decoder."
            )
        if not 0 < low <= high or not 0 <= share <= 1:
            raise ValueError(
                f"Tempered: got temperatures from {low} to {high} with share {share}; expected 0 < low <= high and a "
                "share in [0, 1]. Correct them."
            )
        self.decoder, self.low, self.high, self.share = inner, low, high, share
        self.draws, self.samples = inner.draws, inner.samples

    def bind(self, facts: TaskFacts) -> None:
        """Draw as the inner decoder does, where nothing is tempered."""
        self.sampling = self.decoder.sampling

    def greedy(self) -> Decoder:
        return self.decoder.greedy()

    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        coin, place = torch.rand(2).tolist()
        if coin >= self.share:
            return self.decoder.decode(policy, prompts, environment)
        plain = self.decoder.sampling
        self.decoder.sampling = replace(plain, temperature=self.low + (self.high - self.low) * place)
        try:
            return self.decoder.decode(policy, prompts, environment)
        finally:
            self.decoder.sampling = plain

    def complete(self, policy: Policy, prompts: Prompts, openings: Sequence[Sequence[int]]) -> Rollout:
        """Play on from given tokens at the inner decoder's own temperature."""
        return self.decoder.complete(policy, prompts, openings)

"""Drawing from the policy, and taking its most probable token: the loop of `lrl_core.episodes` with a choice rule."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.drawing import draw, take_best
from lrl_core.episodes import Choice
from lrl_core.sampling import Sampling
from lrl_plugins.decoders.limits import Constraints, LimitedDecoder, StepwiseDecoder


class Sample(StepwiseDecoder):
    """Draws every token from the policy's distribution, tempered and truncated as asked.

    Log-probabilities are those of the distribution drawn from; the loss recomputes them under the same truncation.

    Args:
        max_length: An episode is cut after this many tokens, EOS counted.
        samples: Episodes per prompt; they share one reading of the prompt.
        temperature: Divides the logits; > 0.
        top_k: Keep the k most probable tokens; 0 keeps all.
        top_p: Keep the most probable tokens whose mass before the last is below this; 1 keeps all.
        min_p: Keep tokens at least this many times as probable as the most probable one; 0 keeps all.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never drawn, besides those the tokenizer names (padding, begin, unknown).
        constraints: What every episode must keep: no repeated n-gram, an opening, an end; None for nothing.
    """

    draws = True

    def __init__(
        self,
        max_length: int = 20,
        samples: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        min_length: int = 0,
        banned: tuple[int, ...] = (),
        constraints: Constraints | None = None,
    ) -> None:
        options = Sampling(temperature, top_k, top_p, min_p)
        super().__init__(max_length, min_length, banned, samples, options, constraints)
        self.samples = samples

    def choose(self, logits: Float[Tensor, "b V"], position: Int[Tensor, " b"]) -> Choice:
        """One token per row and its log-probability, truncation included."""
        scaled = self.sampling.scale_(logits, position)
        if self.sampling.truncates:
            scaled = scaled.masked_fill(~self.sampling.keep(scaled), -torch.inf)
        return draw(scaled)

    def greedy(self) -> "Greedy":
        return Greedy.bound(self)


class Greedy(StepwiseDecoder):
    """Takes the most probable token each time; log-probabilities are the policy's own.

    Args:
        max_length: An episode is cut after this many tokens, EOS counted.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never taken, besides those the tokenizer names (padding, begin, unknown).
        constraints: What every episode must keep: no repeated n-gram, an opening, an end; None for nothing.
    """

    def __init__(
        self,
        max_length: int = 20,
        min_length: int = 0,
        banned: tuple[int, ...] = (),
        constraints: Constraints | None = None,
    ) -> None:
        super().__init__(max_length, min_length, banned, many=1, constraints=constraints)

    @classmethod
    def bound(cls, limits: LimitedDecoder) -> "Greedy":
        """A greedy decoder with the limits and constraints of another one that already knows its task."""
        rival = cls(limits.max_length, limits.min_length, limits.banned, limits.constraints)
        rival.pad, rival.eos, rival.opening = limits.pad, limits.eos, limits.opening
        rival.sampling = limits.plain
        return rival

    def choose(self, logits: Float[Tensor, "b V"], position: Int[Tensor, " b"]) -> Choice:
        """The most probable token of each row."""
        return take_best(self.sampling.scale_(logits, position))

    def greedy(self) -> "Greedy":
        return self

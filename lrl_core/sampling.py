"""How a distribution over the vocabulary is made from logits: temperature, bans and truncation, written once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """The way a decoder turned logits into the distribution it drew from.

    It travels with the rollout, so the loss recomputes log-probabilities under the same temperature, bans and
    truncation, and the importance ratio of a fresh rollout is 1. Order: bans, temperature, top-k, top-p, min-p.

    Args:
        temperature: Divides the logits; > 0. 1 leaves them as they are.
        top_k: Keep the k largest logits (ties with the k-th are kept too); 0 keeps all.
        top_p: Keep the smallest set, largest first, whose mass before the last member is < top_p; 1 keeps all.
        min_p: Keep tokens at least min_p times as probable as the most probable one; 0 keeps all.
        banned: Token ids that are never drawn (padding, for one).
        min_length: An episode has at least this many tokens, EOS counted; until then EOS is banned.
        eos: Id of the end token; needed when min_length > 1.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    banned: tuple[int, ...] = ()
    min_length: int = 0
    eos: int | None = None

    def __post_init__(self) -> None:
        expected = {
            "temperature": ("> 0", self.temperature > 0),
            "top_k": (">= 0", self.top_k >= 0),
            "top_p": ("in (0, 1]", 0 < self.top_p <= 1),
            "min_p": ("in [0, 1]", 0 <= self.min_p <= 1),
            "min_length": (">= 0", self.min_length >= 0),
        }
        for name, (interval, holds) in expected.items():
            if not holds:
                raise ValueError(f"Sampling: {name} is {getattr(self, name)!r}; expected a number {interval}.")
        if self.min_length > 1 and self.eos is None:
            raise ValueError("Sampling: min_length needs the id of the end token; give eos.")

    @property
    def truncates(self) -> bool:
        """Whether some allowed tokens may be left out of the distribution (top-k, top-p or min-p is on)."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def scale(self, logits: Float[Tensor, "N V"], position: Int[Tensor, " N"]) -> Float[Tensor, "N V"]:
        """Logits after bans and temperature, in float32 (or wider); banned entries are -inf.

        Args:
            logits: What the policy says.
            position: Index t of the token that is chosen, counted from the start of the episode.
        """
        scaled = logits if logits.dtype == torch.float64 else logits.float()
        if self.temperature != 1:
            scaled = scaled / self.temperature
        if self.banned:
            banned = torch.tensor(self.banned, device=logits.device)
            scaled = scaled.index_fill(1, banned, -torch.inf)
        if self.min_length > 1:
            early = position + 1 < self.min_length
            column = scaled[:, self.eos].masked_fill(early, -torch.inf)
            scaled = scaled.index_copy(1, torch.tensor([self.eos], device=logits.device), column[:, None])
        return scaled

    def keep(self, scaled: Float[Tensor, "N V"]) -> Bool[Tensor, "N V"]:
        """Which tokens top-k, top-p and min-p leave in, from the result of `scale`. The most probable always stays."""
        kept = scaled > -torch.inf
        if 0 < self.top_k < scaled.shape[1]:
            kept &= scaled >= scaled.topk(self.top_k, dim=1).values[:, -1:]
        if self.top_p < 1:
            ordered, order = scaled.masked_fill(~kept, -torch.inf).sort(dim=1, descending=True, stable=True)
            probability = ordered.softmax(1)
            mass_before = probability.cumsum(1) - probability
            first = torch.arange(scaled.shape[1], device=scaled.device) == 0
            kept &= ((mass_before < self.top_p) | first).gather(1, order.argsort(1))
        if self.min_p > 0:
            best = scaled.amax(1, keepdim=True)
            kept &= (scaled - best).exp() >= self.min_p
        return kept

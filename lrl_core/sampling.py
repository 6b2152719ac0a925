"""How a distribution over the vocabulary is made from logits: temperature, bans and truncation, written once."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Bans(NamedTuple):
    """Tokens that may not be chosen at some places only (a repeated n-gram, what an environment has closed): pairs."""

    row: Int[Tensor, " M"]
    """Which of N rows of logits; sorted."""
    token: Int[Tensor, " M"]
    """Which token may not follow there; a pair may occur twice."""

    @classmethod
    def of(cls, places: Bool[Tensor, " N"], tokens: tuple[int, ...]) -> "Bans":
        """The same tokens, at least one, at every one of N places that is True."""
        row = places.nonzero().squeeze(1).repeat_interleave(len(tokens))
        return cls(row, torch.tensor(tokens, device=row.device, dtype=torch.long).repeat(len(row) // len(tokens)))

    def beside(self, other: "Bans | None") -> "Bans":
        """These pairs and others of the same rows."""
        if other is None:
            return self
        row, token = torch.cat([self.row, other.row]), torch.cat([self.token, other.token])
        order = row.argsort()
        return Bans(row[order], token[order])

    def within(self, rows: slice) -> "Bans":
        """The pairs of these consecutive rows, counted from the first of them."""
        ends = torch.tensor([rows.start, rows.stop], device=self.row.device)
        first, last = torch.searchsorted(self.row, ends).tolist()
        return Bans(self.row[first:last] - rows.start, self.token[first:last])


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
        eos: Id of the end token; needed when min_length > 1 and for `limit`.
        limit: Where a token is the episode's last one of this many, only EOS is left; None lets the limit cut.
        no_repeat_ngram: No n-gram of this many tokens occurs twice in an episode; 0 allows all. The whole line
            counts, also what was forced or said by an environment; the prompt does not. EOS is never banned by it,
            and where it would leave no token at all it bans nothing.
        closes: Token ids that cannot be drawn where the rollout says so (`Rollout.closed`), as an environment decides.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    banned: tuple[int, ...] = ()
    min_length: int = 0
    eos: int | None = None
    limit: int | None = None
    no_repeat_ngram: int = 0
    closes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expected = {
            "temperature": ("> 0", self.temperature > 0),
            "top_k": (">= 0", self.top_k >= 0),
            "top_p": ("in (0, 1]", 0 < self.top_p <= 1),
            "min_p": ("in [0, 1]", 0 <= self.min_p <= 1),
            "min_length": (">= 0", self.min_length >= 0),
            "limit": (">= 1, or None", self.limit is None or self.limit >= 1),
            "no_repeat_ngram": (">= 0", self.no_repeat_ngram >= 0),
        }
        for name, (interval, holds) in expected.items():
            if not holds:
                raise ValueError(f"Sampling: {name} is {getattr(self, name)!r}; expected a number {interval}.")
        if self.min_length > 1 and self.eos is None:
            raise ValueError("Sampling: min_length needs the id of the end token; give eos.")
        if self.limit is not None and (self.eos is None or self.eos in self.banned):
            raise ValueError(f"Sampling: limit forces the end token, but eos is {self.eos} and banned {self.banned}.")

    @property
    def truncates(self) -> bool:
        """Whether some allowed tokens may be left out of the distribution (top-k, top-p or min-p is on)."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def scale(
        self, logits: Float[Tensor, "N V"], position: Int[Tensor, " N"], bans: Bans | None = None
    ) -> Float[Tensor, "N V"]:
        """Logits after bans and temperature, in float32 (or wider); banned entries are -inf.

        Args:
            logits: What the policy says.
            position: Index t of the token that is chosen, counted from the start of the episode.
            bans: What else may not be chosen in these rows; None for nothing.
        """
        return self.scale_(logits.clone(), position, bans)

    def scale_(
        self, logits: Float[Tensor, "N V"], position: Int[Tensor, " N"], bans: Bans | None = None
    ) -> Float[Tensor, "N V"]:
        """The same without a copy of the vocabulary: the given logits may be overwritten. Arguments as in `scale`."""
        scaled = logits if logits.dtype == torch.float64 else logits.float()
        if self.temperature != 1:
            scaled = scaled.div_(self.temperature)
        return self._allow_(scaled, position, bans)

    def allow(
        self, logits: Float[Tensor, "N V"], position: Int[Tensor, " N"], bans: Bans | None = None
    ) -> Float[Tensor, "N V"]:
        """The same logits with every banned entry at -inf; twice is the same as once. Arguments as in `scale`."""
        return self._allow_(logits.clone(), position, bans)

    def _allow_(self, logits: Tensor, position: Tensor, bans: Bans | None) -> Tensor:
        if self.banned:
            logits.index_fill_(1, torch.tensor(self.banned, device=logits.device), -torch.inf)
        if self.min_length > 1:
            logits[:, self.eos].masked_fill_(position + 1 < self.min_length, -torch.inf)
        if self.limit is not None:
            others = torch.arange(logits.shape[1], device=logits.device) != self.eos
            logits.masked_fill_((position + 1 >= self.limit)[:, None] & others, -torch.inf)
        if bans is not None and self.closes:
            closed = torch.isin(bans.token, torch.tensor(self.closes, device=logits.device))
            logits = _without(logits, bans.row[closed], bans.token[closed])
            # Where both would leave nothing, it is the repetition that is allowed.
            logits = _without(logits, bans.row[~closed], bans.token[~closed])
        elif bans is not None:
            logits = _without(logits, bans.row, bans.token)
        return logits

    def repeated(self, history: Int[Tensor, "N T"]) -> Bans | None:
        """What may not come next after these lines, all T tokens long; None where no n-gram is banned.

        Rows may be padded: what they are told is of no use after their end.
        """
        n, length = self.no_repeat_ngram, history.shape[1]
        if n == 0:
            return None
        if length < n:
            return Bans(history.new_zeros(0), history.new_zeros(0))
        seen = history.unfold(1, n, 1)
        context = history[:, length - n + 1 :]
        row, start = (seen[:, :, :-1] == context[:, None]).all(2).nonzero(as_tuple=True)
        token = history[row, start + n - 1]
        free = token != self.eos if self.eos is not None else torch.ones_like(token, dtype=torch.bool)
        return Bans(row[free], token[free])

    def bans(
        self, tokens: Int[Tensor, "B T"], at: tuple[Tensor, ...], closed: Bool[Tensor, "B T"] | None = None
    ) -> Bans | None:
        """What could not come at these places of finished episodes; row n of the answer is place n.

        Args:
            tokens: The episodes.
            at: Rows and columns of N places, in reading order.
            closed: Where an environment had closed the tokens of `closes`; None for nowhere.
        """
        repeats = self._repeats(tokens, at)
        return repeats if closed is None or not self.closes else Bans.of(closed[at], self.closes).beside(repeats)

    def _repeats(self, tokens: Int[Tensor, "B T"], at: tuple[Tensor, ...]) -> Bans | None:
        if self.no_repeat_ngram == 0:
            return None
        place = torch.full_like(tokens, -1)
        place[at] = torch.arange(len(at[0]), device=tokens.device)
        pairs = []
        for t in range(tokens.shape[1]):
            found = self.repeated(tokens[:, :t])
            assert found is not None
            rows = place[found.row, t]
            pairs.append((rows[rows >= 0], found.token[rows >= 0]))
        row, token = (torch.cat(parts) for parts in zip(*pairs, strict=True)) if pairs else (place[:0, 0],) * 2
        order = row.argsort()
        return Bans(row[order], token[order])

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


def _without(logits: Float[Tensor, "N V"], row: Int[Tensor, " M"], token: Int[Tensor, " M"]) -> Float[Tensor, "N V"]:
    """Logits without these tokens in these rows, but for rows of which nothing would be left."""
    fewer = logits.index_put((row, token), logits.new_tensor(-torch.inf))
    return torch.where((fewer > -torch.inf).any(1, keepdim=True), fewer, logits)

"""Beams: the best prefixes of each prompt, grown token by token. Beam search plays one, diverse beam search several."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.drawing import largest
from lrl_core.episodes import COMPACT_BELOW, survivors
from lrl_core.interfaces import Policy
from lrl_core.masks import length_mask
from lrl_core.sampling import Bans, Sampling
from lrl_core.types import Prompts, Rollout
from lrl_plugins.decoders.limits import LimitedDecoder

Normalisation = Literal["average", "gnmt"]


class Ranking(NamedTuple):
    """How many prefixes are kept, and by what an episode's summed log-probability is divided."""

    width: int
    """Prefixes kept per prompt."""
    alpha: float
    """Exponent of the length normalisation."""
    kind: Normalisation
    """Its form."""


class Turn(NamedTuple):
    """What stands before the first token that a beam chooses, and where the last one may stand."""

    lines: Int[Tensor, "B t"]
    """The tokens before it, the same number for every prompt."""
    counted: int
    """How many of them are no part of |Y|: what was said in earlier turns."""
    limit: int
    """Length of the whole line at which a prefix competes as it is."""
    ends: tuple[int, ...]
    """Token ids with which a prefix ends."""
    closed: Bool[Tensor, " B"] | None = None
    """True where the environment has closed the tokens of `Sampling.closes`; None where nothing is ever closed."""

    @classmethod
    def monologue(cls, limits: LimitedDecoder, prompts: Prompts) -> "Turn":
        """The one turn of an episode in which nobody answers."""
        opening = torch.tensor(limits.opening, device=prompts.lengths.device, dtype=torch.long)
        return cls(opening.repeat(len(prompts), 1), 0, limits.max_length, (limits.eos,))

    @property
    def longest(self) -> int:
        """The largest |Y|."""
        return self.limit - self.counted


def length_penalty(length: int | Tensor, alpha: float, kind: Normalisation) -> float | Tensor:
    """What a summed log-probability is divided by: |Y|^alpha, or ((5 + |Y|) / 6)^alpha (Wu 2016, eq. 14)."""
    return length**alpha if kind == "average" else ((5 + length) / 6) ** alpha


@torch.inference_mode()
def play_beams(
    policy: Policy, prompts: Prompts, limits: LimitedDecoder, ranking: Ranking, groups: int = 1, strength: float = 0.0
) -> list["Beam"]:
    """Grow `groups` beams per prompt, all on one state; later ones avoid what earlier ones take at the same place.

    Args:
        policy: Whose episodes.
        prompts: What is asked.
        limits: Length limits, bans and opening.
        ranking: Width of each beam and how finished episodes compete.
        groups: Beams per prompt.
        strength: What a token loses each time that an earlier beam of the prompt took it at this place.
    """
    logits, state = policy.begin(prompts)
    for token in limits.opening:
        logits, state = policy.step(torch.full_like(prompts.lengths, token), state)
    turn = Turn.monologue(limits, prompts)
    beams = [Beam(limits.sampling, ranking, turn, logits) for _ in range(groups)]
    rows = torch.arange(len(prompts), device=logits.device).repeat_interleave(ranking.width).repeat(groups)
    logits, state = logits[rows], state.select(rows)
    for t in range(len(limits.opening), limits.max_length):
        count = len(beams[0].held) * ranking.width
        taken = beams[0].score.new_zeros(len(beams[0].held), logits.shape[1] if groups > 1 else 0)
        grown = []
        for group, beam in enumerate(beams):
            handicap = strength * taken if group > 0 else None  # no other beam has taken anything before the first
            tokens, parents = beam.extend(logits[group * count : (group + 1) * count], t, handicap)
            if group + 1 < groups:
                taken += beam.taken(logits.shape[1])
            grown.append((tokens, parents + group * count))
        growing = ~torch.stack([beam.done() for beam in beams]).all(0)
        if t + 1 == limits.max_length or not bool(growing.any()):
            break
        tokens, parents = (torch.cat(parts) for parts in zip(*grown, strict=True))
        if int(growing.sum()) <= COMPACT_BELOW * len(growing):
            keep = survivors(growing)
            rows = torch.arange(len(tokens), device=keep.device).view(groups, len(growing), -1)[:, keep].flatten()
            tokens, parents = tokens[rows], parents[rows]
            for beam in beams:
                beam.keep(keep)
        logits, state = policy.step(tokens, state.select(parents))
    return beams


class Beam:
    """Live prefixes [b W] of the prompts that still grow, and the best finished one of each prompt [B].

    Args:
        sampling: Bans.
        ranking: Width and length normalisation.
        turn: Where the beam begins and ends.
        logits: Of the first step, for their device and precision.
    """

    def __init__(self, sampling: Sampling, ranking: Ranking, turn: Turn, logits: Tensor) -> None:
        self.sampling, self.ranking, self.turn, self.width = sampling, ranking, turn, ranking.width
        self.device, dtype = logits.device, torch.promote_types(logits.dtype, torch.float32)
        prompts, before = turn.lines.shape
        shape = (prompts, self.width)
        self.held = torch.arange(prompts, device=self.device)  # which prompt each row of live prefixes belongs to
        self.score = torch.full(shape, -torch.inf, device=self.device, dtype=dtype)
        self.score[:, 0] = 0  # one empty prefix per prompt, not `width` equal ones
        self.tokens = torch.zeros(*shape, turn.limit, device=self.device, dtype=torch.long)
        self.tokens[:, :, :before] = turn.lines[:, None]
        self.logprobs = torch.zeros(*shape, turn.limit, device=self.device, dtype=dtype)
        self.ends, self.vocabulary = torch.tensor(turn.ends, device=self.device), logits.shape[1]
        # A prefix ends in at most as many ways as there are ends, so these hold `width` prefixes that go on.
        self.looked_at = self.width * (1 + len(turn.ends))
        self.best_score = torch.full((prompts,), -torch.inf, device=self.device, dtype=dtype)
        self.best_tokens, self.best_logprobs = self.tokens[:, 0].clone(), self.logprobs[:, 0].clone()
        self.best_length = torch.zeros(prompts, dtype=torch.long, device=self.device)

    def extend(
        self, logits: Float[Tensor, "BW V"], t: int, handicap: Float[Tensor, "B V"] | None
    ) -> tuple[Int[Tensor, " BW"], Int[Tensor, " BW"]]:
        """Grow every prefix by one token; the live ones' tokens and the rows of the state they grew from.

        Args:
            logits: What the policy says after each prefix.
            t: Index of the token that is chosen.
            handicap: Taken off a candidate when the best are chosen now; it does not stay in a prefix' score. None
                takes nothing off.
        """
        width = self.width
        token, gained, cost = self._candidates(logits, t, handicap)
        reached = (self.score[:, :, None] + gained).flatten(1)
        ranked = reached if cost is None else reached - cost.flatten(1)
        which = ranked.topk(min(self.looked_at, ranked.shape[1]), dim=1).indices
        value, token, gained = (x.flatten(1).gather(1, which) for x in (reached, token, gained))
        parent = which // (reached.shape[1] // width)
        ends = (token[:, :, None] == self.ends).any(2)
        within = torch.arange(ends.shape[1], device=ends.device) < width
        self.chosen, self.possible = token[:, :width], value[:, :width] > -torch.inf
        last = t + 1 == self.turn.limit
        self._finish(value.masked_fill(~(within & (ends | last)), -torch.inf), parent, token, gained, t)
        self._keep(value, ends, parent, token, gained, t)
        return self.tokens[:, :, t].flatten(), self.parents

    def taken(self, vocabulary: int) -> Float[Tensor, "B V"]:
        """How often each token is among the `width` best that were just chosen."""
        counts = self.score.new_zeros(len(self.chosen), vocabulary)
        return counts.scatter_add(1, self.chosen, self.possible.to(counts.dtype))

    def _candidates(self, logits: Tensor, t: int, handicap: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The best tokens after each prefix [B W K], their log-probabilities, and what each is handicapped by.

        No more of one prefix can be looked at than of its whole beam, so the rest need no sorting.
        """
        prompts, width = self.score.shape
        position = torch.full((len(logits),), t, device=logits.device)
        scaled = self.sampling.scale_(logits, position, self._bans(t))
        cost = None if handicap is None else handicap.repeat_interleave(width, 0)
        values, token = largest(scaled if cost is None else scaled - cost, min(self.looked_at, scaled.shape[1]))
        if cost is not None:
            cost, values = cost.gather(1, token), scaled.gather(1, token)
        most = scaled.amax(1, keepdim=True)
        gained = values - most - (scaled - most).exp_().sum(1, keepdim=True).log()
        shape = (prompts, width, -1)
        return token.view(shape), gained.view(shape), None if cost is None else cost.view(shape)

    def _bans(self, t: int) -> Bans | None:
        """What may not come next after each prefix: a repeated n-gram, what the environment has closed."""
        repeated = self.sampling.repeated(self.tokens[:, :, :t].flatten(0, 1))
        if self.turn.closed is None:
            return repeated
        closed = self.turn.closed[self.held].repeat_interleave(self.width)
        return Bans.of(closed, self.sampling.closes).beside(repeated)

    def _keep(self, value: Tensor, ends: Tensor, parent: Tensor, token: Tensor, gained: Tensor, t: int) -> None:
        """The first `width` candidates that go on, in the order of their rank."""
        order = torch.where(ends, 1, 0).sort(dim=1, stable=True).indices[:, : self.width]
        value = value.masked_fill(ends, -torch.inf)
        value, parent, token, gained = (x.gather(1, order) for x in (value, parent, token, gained))
        missing = self.width - parent.shape[1]
        if missing:  # a vocabulary smaller than the beam: the rest of the beam stays empty
            parent, token, gained = (torch.nn.functional.pad(x, (0, missing)) for x in (parent, token, gained))
        self.score = torch.nn.functional.pad(value, (0, missing), value=-torch.inf)
        self.tokens = self.tokens.gather(1, parent[:, :, None].expand_as(self.tokens)).clone()
        self.logprobs = self.logprobs.gather(1, parent[:, :, None].expand_as(self.logprobs)).clone()
        self.tokens[:, :, t], self.logprobs[:, :, t] = token, gained
        first = torch.arange(len(parent), device=parent.device)[:, None] * self.width
        self.parents = (first + parent).flatten()

    def _finish(self, score: Tensor, parent: Tensor, token: Tensor, gained: Tensor, t: int) -> None:
        """Remember the best candidate of each prompt among those whose score is not -inf."""
        raw, which = score.max(1)
        normalised = raw / length_penalty(t + 1 - self.turn.counted, self.ranking.alpha, self.ranking.kind)
        better = (normalised > self.best_score[self.held]).nonzero().squeeze(1)
        prompt, chosen = self.held[better], which[better]
        origin = parent[better, chosen]
        self.best_score[prompt] = normalised[better]
        self.best_tokens[prompt] = self.tokens[better, origin]
        self.best_logprobs[prompt] = self.logprobs[better, origin]
        self.best_tokens[prompt, t] = token[better, chosen]
        self.best_logprobs[prompt, t] = gained[better, chosen]
        self.best_length[prompt] = t + 1

    def done(self) -> Bool[Tensor, " b"]:
        """Whether no live prefix of a prompt can still beat its best finished one."""
        largest_penalty = length_penalty(self.turn.longest, self.ranking.alpha, self.ranking.kind)
        return self.best_score[self.held] >= self.score.amax(1) / largest_penalty

    def keep(self, rows: Int[Tensor, " r"]) -> None:
        """Grow only these of the prompts that are held."""
        self.held, self.score = self.held[rows], self.score[rows]
        self.tokens, self.logprobs = self.tokens[rows], self.logprobs[rows]

    def rollout(self, prompts: Prompts, limits: LimitedDecoder) -> Rollout:
        """The best episode of each prompt, where nobody answers."""
        real = length_mask(self.best_length, self.turn.limit)
        chosen = real & (torch.arange(self.turn.limit, device=real.device) >= self.turn.lines.shape[1])
        last = self.best_tokens.gather(1, (self.best_length[:, None] - 1).clamp(min=0)).squeeze(1)
        return Rollout(
            prompts=prompts,
            tokens=self.best_tokens.masked_fill(~real, limits.pad),
            lengths=self.best_length.clone(),
            action_mask=chosen,
            logprobs=self.best_logprobs.masked_fill(~chosen, 0),
            terminated=last == limits.eos,
            sampling=self.sampling,
        ).trimmed()

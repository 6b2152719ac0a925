"""Beams: the best prefixes of each prompt, grown token by token. Beam search plays one, diverse beam search several."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.drawing import largest
from lrl_core.episodes import COMPACT_BELOW, survivors
from lrl_core.interfaces import Policy
from lrl_core.masks import length_mask
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
    beams = [Beam(limits, ranking, len(prompts), logits) for _ in range(groups)]
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
        limits: Length limits, bans and opening.
        ranking: Width and length normalisation.
        prompts: How many.
        logits: Of the first step, for their device and precision.
    """

    def __init__(self, limits: LimitedDecoder, ranking: Ranking, prompts: int, logits: Tensor) -> None:
        self.limits, self.ranking, self.width, device = limits, ranking, ranking.width, logits.device
        dtype = torch.promote_types(logits.dtype, torch.float32)
        shape = (prompts, self.width)
        self.held = torch.arange(prompts, device=device)  # which prompt each row of live prefixes belongs to
        self.score = torch.full(shape, -torch.inf, device=device, dtype=dtype)
        self.score[:, 0] = 0  # one empty prefix per prompt, not `width` equal ones
        self.tokens = torch.full((*shape, limits.max_length), limits.pad, device=device)
        self.tokens[:, :, : len(limits.opening)] = torch.tensor(limits.opening, device=device, dtype=torch.long)
        self.logprobs = torch.zeros(*shape, limits.max_length, device=device, dtype=dtype)
        self.best_score = torch.full((prompts,), -torch.inf, device=device, dtype=dtype)
        self.best_tokens, self.best_logprobs = self.tokens[:, 0].clone(), self.logprobs[:, 0].clone()
        self.best_length = torch.zeros(prompts, dtype=torch.long, device=device)
        self.best_terminated = torch.zeros(prompts, dtype=torch.bool, device=device)

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
        # Each prefix ends in at most one way, so twice the width always holds `width` prefixes that go on.
        which = ranked.topk(min(2 * width, ranked.shape[1]), dim=1).indices
        value, token, gained = (x.flatten(1).gather(1, which) for x in (reached, token, gained))
        parent = which // (reached.shape[1] // width)
        ends = token == self.limits.eos
        within = torch.arange(ends.shape[1], device=ends.device) < width
        self.chosen, self.possible = token[:, :width], value[:, :width] > -torch.inf
        last = t + 1 == self.limits.max_length
        self._finish(value.masked_fill(~(within & (ends | last)), -torch.inf), parent, token, gained, t)
        self._keep(value, ends, parent, token, gained, t)
        return self.tokens[:, :, t].flatten(), self.parents

    def taken(self, vocabulary: int) -> Float[Tensor, "B V"]:
        """How often each token is among the `width` best that were just chosen."""
        counts = self.score.new_zeros(len(self.chosen), vocabulary)
        return counts.scatter_add(1, self.chosen, self.possible.to(counts.dtype))

    def _candidates(self, logits: Tensor, t: int, handicap: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The best tokens after each prefix [B W K], their log-probabilities, and what each is handicapped by.

        No more than 2 W of one prefix can be among the best 2 W of its beam, so the rest need no sorting.
        """
        (prompts, width), sampling = self.score.shape, self.limits.sampling
        position = torch.full((len(logits),), t, device=logits.device)
        scaled = sampling.scale_(logits, position, sampling.repeated(self.tokens[:, :, :t].flatten(0, 1)))
        cost = None if handicap is None else handicap.repeat_interleave(width, 0)
        values, token = largest(scaled if cost is None else scaled - cost, min(2 * width, scaled.shape[1]))
        if cost is not None:
            cost, values = cost.gather(1, token), scaled.gather(1, token)
        most = scaled.amax(1, keepdim=True)
        gained = values - most - (scaled - most).exp_().sum(1, keepdim=True).log()
        shape = (prompts, width, -1)
        return token.view(shape), gained.view(shape), None if cost is None else cost.view(shape)

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
        normalised = raw / length_penalty(t + 1, self.ranking.alpha, self.ranking.kind)
        better = (normalised > self.best_score[self.held]).nonzero().squeeze(1)
        prompt, chosen = self.held[better], which[better]
        origin = parent[better, chosen]
        self.best_score[prompt] = normalised[better]
        self.best_tokens[prompt] = self.tokens[better, origin]
        self.best_logprobs[prompt] = self.logprobs[better, origin]
        self.best_tokens[prompt, t] = token[better, chosen]
        self.best_logprobs[prompt, t] = gained[better, chosen]
        self.best_length[prompt] = t + 1
        self.best_terminated[prompt] = token[better, chosen] == self.limits.eos

    def done(self) -> Bool[Tensor, " b"]:
        """Whether no live prefix of a prompt can still beat its best finished one."""
        largest_penalty = length_penalty(self.limits.max_length, self.ranking.alpha, self.ranking.kind)
        return self.best_score[self.held] >= self.score.amax(1) / largest_penalty

    def keep(self, rows: Int[Tensor, " r"]) -> None:
        """Grow only these of the prompts that are held."""
        self.held, self.score = self.held[rows], self.score[rows]
        self.tokens, self.logprobs = self.tokens[rows], self.logprobs[rows]

    def rollout(self, prompts: Prompts) -> Rollout:
        """The best episode of each prompt."""
        real = length_mask(self.best_length, self.limits.max_length)
        chosen = real & (torch.arange(self.limits.max_length, device=real.device) >= len(self.limits.opening))
        return Rollout(
            prompts=prompts,
            tokens=self.best_tokens.masked_fill(~real, self.limits.pad),
            lengths=self.best_length.clone(),
            action_mask=chosen,
            logprobs=self.best_logprobs.masked_fill(~chosen, 0),
            terminated=self.best_terminated.clone(),
            sampling=self.limits.sampling,
        ).trimmed()

"""Beams: the best prefixes of each prompt, grown token by token. Beam search plays one, diverse beam search several."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

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


@torch.no_grad()
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
    count = len(prompts) * ranking.width
    for t in range(len(limits.opening), limits.max_length):
        taken = beams[0].score.new_zeros(len(prompts), logits.shape[1])
        grown = []
        for group, beam in enumerate(beams):
            tokens, parents = beam.extend(logits[group * count : (group + 1) * count], t, strength * taken)
            taken += beam.taken(logits.shape[1])
            grown.append((tokens, parents + group * count))
        if t + 1 == limits.max_length or all(beam.all_done() for beam in beams):
            break
        tokens, parents = (torch.cat(parts) for parts in zip(*grown, strict=True))
        logits, state = policy.step(tokens, state.select(parents))
    return beams


class Beam:
    """Live prefixes [B W] and the best finished one of each prompt.

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
        self.first = torch.arange(prompts, device=device)[:, None] * self.width
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
        self, logits: Float[Tensor, "BW V"], t: int, handicap: Float[Tensor, "B V"]
    ) -> tuple[Int[Tensor, " BW"], Int[Tensor, " BW"]]:
        """Grow every prefix by one token; the live ones' tokens and the rows of the state they grew from.

        Args:
            logits: What the policy says after each prefix.
            t: Index of the token that is chosen.
            handicap: Taken off a candidate when the best are chosen now; it does not stay in a prefix' score.
        """
        prompts, width = self.score.shape
        logprobs = self._logprobs(logits, t).view(prompts, width, -1)
        vocabulary = logprobs.shape[2]
        reached = (self.score[:, :, None] + logprobs).flatten(1)
        # Each prefix ends in at most one way, so twice the width always holds `width` prefixes that go on.
        ranked = (reached.view_as(logprobs) - handicap[:, None]).flatten(1)
        which = ranked.topk(min(2 * width, reached.shape[1]), dim=1).indices
        value = reached.gather(1, which)
        parent, token = which // vocabulary, which % vocabulary
        gained = logprobs.flatten(1).gather(1, which)
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

    def _logprobs(self, logits: Float[Tensor, "BW V"], t: int) -> Float[Tensor, "BW V"]:
        sampling = self.limits.sampling
        position = torch.full((len(logits),), t, device=logits.device)
        repeats = sampling.repeated(self.tokens[:, :, :t].flatten(0, 1))
        return sampling.scale(logits, position, repeats).log_softmax(1)

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
        self.parents = (self.first + parent).flatten()

    def _finish(self, score: Tensor, parent: Tensor, token: Tensor, gained: Tensor, t: int) -> None:
        """Remember the best candidate of each prompt among those whose score is not -inf."""
        raw, which = score.max(1)
        normalised = raw / length_penalty(t + 1, self.ranking.alpha, self.ranking.kind)
        better = (normalised > self.best_score).nonzero().squeeze(1)
        chosen = which[better]
        origin = parent[better, chosen]
        self.best_score[better] = normalised[better]
        self.best_tokens[better] = self.tokens[better, origin]
        self.best_logprobs[better] = self.logprobs[better, origin]
        self.best_tokens[better, t] = token[better, chosen]
        self.best_logprobs[better, t] = gained[better, chosen]
        self.best_length[better] = t + 1
        self.best_terminated[better] = token[better, chosen] == self.limits.eos

    def all_done(self) -> bool:
        """Whether no live prefix of any prompt can still beat its best finished one."""
        largest = length_penalty(self.limits.max_length, self.ranking.alpha, self.ranking.kind)
        return bool((self.best_score >= self.score.amax(1) / largest).all())

    def rollout(self, prompts: Prompts) -> Rollout:
        """The best episode of each prompt."""
        real = length_mask(self.best_length, self.limits.max_length)
        chosen = real & (torch.arange(self.limits.max_length, device=real.device) >= len(self.limits.opening))
        return Rollout(
            prompts=prompts,
            tokens=self.best_tokens.masked_fill(~real, self.limits.pad),
            lengths=self.best_length,
            action_mask=chosen,
            logprobs=self.best_logprobs.masked_fill(~chosen, 0),
            terminated=self.best_terminated,
            sampling=self.limits.sampling,
        ).trimmed()

"""Beam search: the best-scoring episode among those that a beam of prefixes reaches."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.interfaces import Environment, Policy, State
from lrl_core.masks import length_mask
from lrl_core.types import Prompts, Rollout
from lrl_plugins.decoders.limits import LimitedDecoder
from lrl_plugins.decoders.sample import Greedy

Normalisation = Literal["average", "gnmt"]


def length_penalty(length: int | Tensor, alpha: float, kind: Normalisation) -> float | Tensor:
    """What a summed log-probability is divided by: |Y|^alpha, or ((5 + |Y|) / 6)^alpha (Wu 2016, eq. 14)."""
    return length**alpha if kind == "average" else ((5 + length) / 6) ** alpha


class BeamSearch(LimitedDecoder):
    """Keeps the `width` best prefixes; a prefix that ends leaves the beam and competes by its normalised score.

    A prompt is done once its best finished score is no worse than the best that any live prefix could still reach
    (its summed log-probability over the largest penalty). At the length limit live prefixes compete as they are.

    Args:
        width: Prefixes kept per prompt, >= 1; 1 is greedy decoding.
        max_length: An episode is cut after this many tokens, EOS counted.
        length_alpha: Exponent of the length normalisation, >= 0; 0 compares plain sums, which favours short episodes.
        normalisation: `average` divides by |Y|^alpha, `gnmt` by ((5 + |Y|) / 6)^alpha.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never taken, besides those the tokenizer names (padding, begin, unknown).
    """

    def __init__(
        self,
        width: int = 5,
        max_length: int = 20,
        length_alpha: float = 1.0,
        normalisation: Normalisation = "average",
        min_length: int = 0,
        banned: tuple[int, ...] = (),
    ) -> None:
        super().__init__(max_length, min_length, banned, many=width)
        if length_alpha < 0:
            raise ValueError(f"BeamSearch: length_alpha is {length_alpha}; expected >= 0 (0: no normalisation).")
        self.width, self.length_alpha, self.normalisation = width, length_alpha, normalisation

    def greedy(self) -> Greedy:
        return Greedy.bound(self)

    @torch.no_grad()
    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        if environment is not None:
            raise ValueError(
                f"BeamSearch cannot play with an environment ({type(environment).__name__}): its prefixes would need "
                "an answer each. Use Greedy or Sample."
            )
        logits, state = policy.begin(prompts)
        beam = _Beam(self, len(prompts), logits)
        state = state.select(beam.rows)
        logits = logits[beam.rows]
        for t in range(self.max_length):
            tokens, parents = beam.extend(logits, t)
            if t + 1 == self.max_length or beam.all_done():
                break
            logits, state = _step(policy, tokens, parents, state)
        return beam.rollout(prompts)


def _step(policy: Policy, tokens: Tensor, parents: Tensor, state: State) -> tuple[Tensor, State]:
    return policy.step(tokens, state.select(parents))


class _Beam:
    """Live prefixes [B W] and the best finished one of each prompt."""

    def __init__(self, search: BeamSearch, prompts: int, logits: Tensor) -> None:
        self.search, self.width, device = search, search.width, logits.device
        dtype = torch.promote_types(logits.dtype, torch.float32)
        shape = (prompts, self.width)
        self.rows = torch.arange(prompts, device=device).repeat_interleave(self.width)
        self.first = torch.arange(prompts, device=device)[:, None] * self.width
        self.score = torch.full(shape, -torch.inf, device=device, dtype=dtype)
        self.score[:, 0] = 0  # one empty prefix per prompt, not `width` equal ones
        self.tokens = torch.full((*shape, search.max_length), search.pad, device=device)
        self.logprobs = torch.zeros(*shape, search.max_length, device=device, dtype=dtype)
        self.best_score = torch.full((prompts,), -torch.inf, device=device, dtype=dtype)
        self.best_tokens, self.best_logprobs = self.tokens[:, 0].clone(), self.logprobs[:, 0].clone()
        self.best_length = torch.zeros(prompts, dtype=torch.long, device=device)
        self.best_terminated = torch.zeros(prompts, dtype=torch.bool, device=device)

    def extend(self, logits: Float[Tensor, "BW V"], t: int) -> tuple[Int[Tensor, " BW"], Int[Tensor, " BW"]]:
        """Grow every prefix by one token; the live ones' tokens and the rows of the state they grew from."""
        prompts, width = self.score.shape
        position = torch.full((len(logits),), t, device=logits.device)
        logprobs = self.search.sampling.scale(logits, position).log_softmax(1).view(prompts, width, -1)
        vocabulary = logprobs.shape[2]
        reached = (self.score[:, :, None] + logprobs).flatten(1)
        # Each prefix ends in at most one way, so twice the width always holds `width` prefixes that go on.
        top = reached.topk(min(2 * width, reached.shape[1]), dim=1)
        parent, token = top.indices // vocabulary, top.indices % vocabulary
        gained = logprobs.flatten(1).gather(1, top.indices)
        ends = token == self.search.eos
        within = torch.arange(ends.shape[1], device=ends.device) < width
        last = t + 1 == self.search.max_length
        self._finish(top.values.masked_fill(~(within & (ends | last)), -torch.inf), parent, token, gained, t)
        order = (top.values.masked_fill(ends, -torch.inf)).topk(min(width, ends.shape[1]), dim=1)
        self._keep(order, parent, token, gained, t)
        return self.tokens[:, :, t].flatten(), self.parents

    def _keep(self, order: torch.return_types.topk, parent: Tensor, token: Tensor, gained: Tensor, t: int) -> None:
        parent, token, gained = (x.gather(1, order.indices) for x in (parent, token, gained))
        missing = self.width - parent.shape[1]
        if missing:  # a vocabulary smaller than the beam: the rest of the beam stays empty
            parent, token, gained = (torch.nn.functional.pad(x, (0, missing)) for x in (parent, token, gained))
        self.score = torch.nn.functional.pad(order.values, (0, missing), value=-torch.inf)
        self.tokens = self.tokens.gather(1, parent[:, :, None].expand_as(self.tokens)).clone()
        self.logprobs = self.logprobs.gather(1, parent[:, :, None].expand_as(self.logprobs)).clone()
        self.tokens[:, :, t], self.logprobs[:, :, t] = token, gained
        self.parents = (self.first + parent).flatten()

    def _finish(self, score: Tensor, parent: Tensor, token: Tensor, gained: Tensor, t: int) -> None:
        """Remember the best candidate of each prompt among those whose score is not -inf."""
        raw, which = score.max(1)
        normalised = raw / length_penalty(t + 1, self.search.length_alpha, self.search.normalisation)
        better = (normalised > self.best_score).nonzero().squeeze(1)
        chosen = which[better]
        origin = parent[better, chosen]
        self.best_score[better] = normalised[better]
        self.best_tokens[better] = self.tokens[better, origin]
        self.best_logprobs[better] = self.logprobs[better, origin]
        self.best_tokens[better, t] = token[better, chosen]
        self.best_logprobs[better, t] = gained[better, chosen]
        self.best_length[better] = t + 1
        self.best_terminated[better] = token[better, chosen] == self.search.eos

    def all_done(self) -> bool:
        """Whether no live prefix of any prompt can still beat its best finished one."""
        search = self.search
        largest = length_penalty(search.max_length, search.length_alpha, search.normalisation)
        return bool((self.best_score >= self.score.amax(1) / largest).all())

    def rollout(self, prompts: Prompts) -> Rollout:
        real = length_mask(self.best_length, self.search.max_length)
        return Rollout(
            prompts=prompts,
            tokens=self.best_tokens.masked_fill(~real, self.search.pad),
            lengths=self.best_length,
            action_mask=real,
            logprobs=self.best_logprobs.masked_fill(~real, 0),
            terminated=self.best_terminated,
            sampling=self.search.sampling,
        ).trimmed()

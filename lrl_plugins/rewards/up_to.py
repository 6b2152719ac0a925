"""A reward of the text up to its first full stop, and a penalty where there is none."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.scoring import judge
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import RewardSignal, Rollout

NOWHERE = -1
"""Stands for the place of a token that does not occur."""


def first_stop(rollout: Rollout, stops: tuple[int, ...], after: int) -> Int[Tensor, " B"]:
    """The place of the first chosen stop token at or after place `after`, counted from 0; NOWHERE without one.

    Args:
        rollout: The episodes.
        stops: Ids of the stop tokens.
        after: Earlier places do not count.
    """
    wanted = torch.tensor(stops, device=rollout.tokens.device)
    steps = torch.arange(rollout.tokens.shape[1], device=rollout.tokens.device)
    hits = torch.isin(rollout.tokens, wanted) & rollout.action_mask & (steps >= after)
    places = torch.where(hits, steps, rollout.tokens.shape[1])
    first = places.amin(1) if rollout.tokens.shape[1] else torch.zeros_like(rollout.lengths)
    return torch.where(hits.any(1), first, NOWHERE)


def cut_after(rollout: Rollout, place: Int[Tensor, " B"], tokenizer: Tokenizer) -> Rollout:
    """The episodes up to that place, which then is their end; whole where the place is NOWHERE.

    Args:
        rollout: The episodes, with or without texts.
        place: Of the last token that is kept.
        tokenizer: The task's, to make the new texts.
    """
    found = place != NOWHERE
    lengths = torch.where(found, place + 1, rollout.lengths)
    kept = length_mask(lengths, rollout.tokens.shape[1])

    def cut(line: Tensor | None) -> Tensor | None:
        return None if line is None else torch.where(kept, line, torch.zeros_like(line))

    tokens = torch.where(kept, rollout.tokens, torch.zeros_like(rollout.tokens))
    return replace(
        rollout,
        tokens=tokens,
        lengths=lengths,
        action_mask=rollout.action_mask & kept,
        logprobs=torch.where(kept, rollout.logprobs, 0),
        terminated=rollout.terminated | found,
        environment_reward=cut(rollout.environment_reward),
        closed=cut(rollout.closed),
        reference_logprobs=cut(rollout.reference_logprobs),
        texts=_texts(rollout, tokens, lengths, tokenizer),
    )


def _texts(rollout: Rollout, tokens: Tensor, lengths: Tensor, tokenizer: Tokenizer) -> tuple[str, ...] | None:
    """The old text of a row that was not cut, a new one of the others."""
    if rollout.texts is None:
        return None
    same = (lengths == rollout.lengths).tolist()
    lines = zip(rollout.texts, same, tokens.tolist(), lengths.tolist(), strict=True)
    return tuple(text if whole else tokenizer.decode(ids[:length]) for text, whole, ids, length in lines)


class UpTo(Reward):
    """Judges an episode up to its first stop token at or after a place, and pays a penalty where there is none.

    So Ziegler et al. 2019 (arXiv 1909.08593, section 3.1) judge continuations of 24 tokens up to the first "." at or
    after token 16, and pay -1 without one. The inner reward sees the shortened episodes, tokens and texts, and never
    what comes after; all tokens of an episode are still taught. The penalty comes after the inner reward's own
    normalisation. What the inner reward said of an episode without a stop is dropped, but its normalisers have seen
    it. A KL penalty for all tokens stands beside this reward in a Sum, not in it. Worths of prefixes are not passed on.

    Args:
        reward: Judges the shortened episodes.
        stop: The stop token as text (it must be one token), or ids of several; null for the end token, so that an
            episode that the length limit cut gets the penalty.
        after: Place of the first token, counted from 0, that can be the stop.
        penalty: What an episode without a stop earns instead.
    """

    def __init__(
        self, reward: Reward, stop: str | list[int] | None = None, after: int = 0, penalty: float = -1.0
    ) -> None:
        super().__init__()
        if after < 0 or stop in ("", []):
            raise ValueError(
                f"UpTo: got stop {stop!r} and after {after}; expected a token, ids or null, and a place >= 0. Correct "
                "the recipe."
            )
        self.reward, self.stop, self.after, self.penalty = reward, stop, after, penalty
        self.comparable, self.concurrent, self.rowwise = reward.comparable, reward.concurrent, reward.rowwise
        self._tokenizer: Tokenizer | None = None
        self._stops: tuple[int, ...] = ()

    def bind(self, facts: TaskFacts) -> None:
        """Find the stop token's id."""
        self._tokenizer = facts.tokenizer
        self._stops = _ids(self.stop, facts.tokenizer)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every shortened episode; an episode that the inner reward cannot judge stays NaN unless it pays."""
        if self._tokenizer is None:
            raise ValueError("UpTo was asked before bind(facts); expected the task's tokenizer. Call bind first.")
        place = first_stop(rollout, self._stops, self.after)
        signal = judge(self.reward, cut_after(rollout, place, self._tokenizer))
        stopped = place != NOWHERE
        total = torch.where(stopped, signal.total, self.penalty)
        parts = signal.parts | {"stopped": stopped.to(total.dtype)}
        return RewardSignal(total, by_token=self._by_token(signal, stopped, rollout), parts=parts)

    def _by_token(self, signal: RewardSignal, stopped: Bool[Tensor, " B"], rollout: Rollout) -> Tensor | None:
        if signal.by_token is None:
            return None
        steps = torch.arange(rollout.tokens.shape[1], device=rollout.tokens.device)
        last = (steps == rollout.lengths[:, None] - 1).to(signal.by_token.dtype)
        return torch.where(stopped[:, None], signal.by_token, self.penalty * last)


def _ids(stop: str | list[int] | None, tokenizer: Tokenizer) -> tuple[int, ...]:
    if stop is None:
        return (tokenizer.eos,)
    if isinstance(stop, list):
        return tuple(stop)
    ids = tokenizer.encode(stop)
    if len(ids) != 1 or tokenizer.decode(ids).strip() != stop.strip():
        raise ValueError(
            f"UpTo: got stop {stop!r}, which the task's tokenizer reads as {tokenizer.decode(ids)!r} ({len(ids)} "
            "tokens); expected one token of its vocabulary. Name another, give ids, or null for the end token."
        )
    return tuple(ids)

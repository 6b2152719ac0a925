"""Beam search in a conversation: in each turn a beam of its own, whose best finished prefix is what the policy says."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.conversation import Conversations
from lrl_core.interfaces import Environment, Policy
from lrl_core.sampling import Sampling
from lrl_core.types import Prompts, Reply, Rollout
from lrl_plugins.decoders.beams import Beam, Ranking, Turn
from lrl_plugins.decoders.limits import LimitedDecoder


def play_turns(
    policy: Policy, prompts: Prompts, limits: LimitedDecoder, ranking: Ranking, environment: Environment
) -> Rollout:
    """Play conversations turn by turn: a beam, its best prefix that hands over, the answer (Strub 2017).

    All conversations have their n-th turn at the same time, wherever in their lines it begins. The lines so far are
    read anew for each turn, because the state of a beam has gone further than the prefix that won.

    Args:
        policy: Who speaks.
        prompts: What is asked; one conversation each.
        limits: Length limits, bans and opening.
        ranking: Width of a beam and how finished prefixes compete.
        environment: Who answers.
    """
    talks = Conversations(environment, prompts)
    sampling = replace(limits.sampling, closes=environment.closes)
    lines = [_Line(limits.max_length) for _ in range(len(prompts))]
    for episode, line in enumerate(lines):
        line.add(limits.opening, False, [0.0] * len(limits.opening), _shut(talks, episode))
    with torch.inference_mode():
        while parts := _by_length(lines):
            rows = torch.tensor([row for part in parts for row in part], device=prompts.lengths.device)
            turns = [_turn([lines[row] for row in part], part, limits, talks, rows.device) for part in parts]
            for part, beam in zip(parts, grow(policy, prompts.select(rows), turns, sampling, ranking), strict=True):
                _say(part, beam, lines, limits.eos, talks)
    return _rollout(prompts, lines, limits.pad, sampling, talks)


def grow(policy: Policy, prompts: Prompts, turns: Sequence[Turn], sampling: Sampling, ranking: Ranking) -> list[Beam]:
    """One turn of every conversation, all on one state; a beam for those that begin at the same place.

    Args:
        policy: Who speaks.
        prompts: Those of the conversations, in the order of the turns.
        turns: Where beams begin and end, those that begin first in front.
        sampling: Bans.
        ranking: Width of each beam and how finished prefixes compete.
    """
    logits, state = policy.begin(prompts)
    first = turns[0].lines.shape[1]
    for t in range(first):
        logits, state = policy.step(torch.cat([turn.lines[:, t] for turn in turns]), state)
    rows = torch.arange(len(logits), device=logits.device).repeat_interleave(ranking.width)
    logits, state = logits[rows], state.select(rows)
    beams = [Beam(sampling, ranking, turn, logits) for turn in turns]
    growing = list(beams)
    for t in range(first, max(turn.limit for turn in turns)):
        counts = [len(beam.held) * ranking.width for beam in growing]
        steps = [_advance(beam, part, t) for beam, part in zip(growing, logits.split(counts), strict=True)]
        growing = [beam for beam in growing if len(beam.held)]
        if not growing:
            break
        starts = [sum(counts[:i]) for i in range(len(counts))]
        parents = torch.cat([rows + start for (_, rows), start in zip(steps, starts, strict=True)])
        logits, state = policy.step(torch.cat([tokens for tokens, _ in steps]), state.select(parents))
    return beams


def _advance(beam: Beam, logits: Float[Tensor, "BW V"], t: int) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """One more token of every prefix that goes on, and the row it grew from; before its turn it repeats its line."""
    if t < beam.turn.lines.shape[1]:
        return beam.tokens[:, :, t].flatten(), torch.arange(len(logits), device=logits.device)
    tokens, parents = (rows.view(-1, beam.width) for rows in beam.extend(logits, t, None))
    going = (~beam.done() & (t + 1 < beam.turn.limit)).nonzero().squeeze(1)
    beam.keep(going)
    return tokens[going].flatten(), parents[going].flatten()


@dataclass
class _Line:
    """An episode as it is written, token by token."""

    room: int
    """How many tokens it may have."""
    tokens: list[int] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    paid: list[float] = field(default_factory=list)
    closed: list[bool] = field(default_factory=list)
    begun: bool = False
    """Whether the policy has spoken."""
    terminated: bool = False
    """Whether it has ended by itself."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def over(self) -> bool:
        return self.terminated or len(self) == self.room

    def add(self, tokens: Sequence[int], chosen: bool, logprobs: Sequence[float], closed: bool) -> None:
        self.tokens += tokens
        self.logprobs += logprobs
        self.chosen += [chosen] * len(tokens)
        self.paid += [0.0] * len(tokens)
        self.closed += [closed] * len(tokens)

    def hear(self, reply: Reply, closed: bool) -> None:
        """Write down an answer, as far as there is room for it."""
        self.paid[-1] = reply.reward
        heard = list(reply.tokens)[: self.room - len(self)]
        self.add(heard, False, [0.0] * len(heard), closed)
        self.terminated = reply.done and len(heard) == len(reply.tokens)


def _by_length(lines: Sequence[_Line]) -> list[list[int]]:
    """Which conversations go on, those whose lines are equally long together, the shortest in front."""
    going = sorted((len(line), episode) for episode, line in enumerate(lines) if not line.over)
    return [[episode for _, episode in part] for _, part in groupby(going, key=lambda pair: pair[0])]


def _turn(
    lines: Sequence[_Line], episodes: Sequence[int], limits: LimitedDecoder, talks: Conversations, device: torch.device
) -> Turn:
    """The next turn of conversations whose lines are equally long; an opening counts as part of the first one."""
    begin, longest = len(lines[0]), talks.environment.longest_turn
    return Turn(
        lines=torch.tensor([line.tokens for line in lines], device=device, dtype=torch.long),
        counted=begin if lines[0].begun else 0,
        limit=limits.max_length if longest is None else min(limits.max_length, begin + longest),
        ends=tuple(sorted({*talks.turn_ends, limits.eos})),
        closed=None if talks.shut is None else talks.shut[list(episodes)].to(device),
    )


def _say(episodes: Sequence[int], beam: Beam, lines: Sequence[_Line], eos: int, talks: Conversations) -> None:
    """Write down the best prefix of each conversation, and what is answered to it."""
    begin = beam.turn.lines.shape[1]
    found = zip(beam.best_tokens.tolist(), beam.best_logprobs.tolist(), beam.best_length.tolist(), strict=True)
    for episode, (tokens, logprobs, length) in zip(episodes, found, strict=True):
        line, said = lines[episode], tokens[begin:length]
        line.add(said, True, logprobs[begin:length], _shut(talks, episode))
        line.begun, ended = True, said[-1] == eos
        if talks.hands_over(said, ended):
            reply = talks.answer(episode, said, line.tokens, beam.vocabulary)
            line.hear(replace(reply, tokens=(), done=True) if ended else reply, _shut(talks, episode))


def _shut(talks: Conversations, episode: int) -> bool:
    return talks.shut is not None and bool(talks.shut[episode])


def _rollout(prompts: Prompts, lines: Sequence[_Line], pad: int, sampling: Sampling, talks: Conversations) -> Rollout:
    device, longest = prompts.lengths.device, max(map(len, lines), default=0)

    def filled(rows: Sequence[list[Any]], filling: Any) -> Tensor:
        return torch.tensor([row + [filling] * (longest - len(row)) for row in rows], device=device)

    return Rollout(
        prompts=prompts,
        tokens=filled([line.tokens for line in lines], pad),
        lengths=torch.tensor([len(line) for line in lines], device=device),
        action_mask=filled([line.chosen for line in lines], False),
        logprobs=filled([line.logprobs for line in lines], 0.0),
        terminated=torch.tensor([line.terminated for line in lines], device=device),
        sampling=sampling,
        environment_reward=filled([line.paid for line in lines], 0.0),
        closed=None if talks.shut is None else filled([line.closed for line in lines], False),
    )

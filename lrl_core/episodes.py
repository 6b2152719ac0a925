"""The one loop that plays an episode: the policy chooses or is fed, an environment answers, finished rows leave."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.conversation import Conversations
from lrl_core.interfaces import Environment, Policy
from lrl_core.openings import Joining, shared
from lrl_core.sampling import Bans, Sampling
from lrl_core.types import Prompts, Rollout

Choice = tuple[Int[Tensor, " b"], Float[Tensor, " b"]]
"""A token for each row and its log-probability under the distribution it was drawn from."""

Choose = Callable[[Float[Tensor, "b V"], Int[Tensor, " b"]], Choice]
"""From logits, which may be overwritten, and the position of the token in its episode to a choice."""

COMPACT_BELOW = 0.9
"""Finished rows leave the batch once no more than this share of it still runs: whoever leaves costs a small copy."""

ASK_EVERY = 8
"""Steps between two looks at who has finished, where looking makes the host wait for the device."""


def play(
    policy: Policy,
    prompts: Prompts,
    choose: Choose,
    max_length: int,
    *,
    pad: int,
    eos: int | None,
    sampling: Sampling,
    samples: int = 1,
    environment: Environment | None = None,
    forced: Sequence[Sequence[int]] | None = None,
) -> Rollout:
    """Play `samples` episodes per prompt row, all at once on one state; each distinct prompt is read once.

    The policy is read in inference mode: what it computes here cannot be differentiated.

    Args:
        policy: Whose episodes.
        prompts: One row per episode group; rows of one group share one reading.
        choose: Makes a token of logits.
        max_length: An episode is cut after this many tokens.
        pad: Fills the line behind an episode.
        eos: Ends an episode when the policy chooses it; None: only the environment and the limit do.
        sampling: How `choose` makes its distribution; recorded in the rollout.
        samples: Episodes per prompt row; they stand together.
        environment: Who answers when the policy hands over; None for a monologue.
        forced: Tokens that each episode is fed before it may choose (one list per episode); None for none. An opening
            that ends with `eos` is a whole episode.
    """
    if environment is not None and environment.closes:
        sampling = replace(sampling, closes=environment.closes)
    distinct, index = prompts.distinct()
    rows = torch.arange(len(prompts), device=index.device).repeat_interleave(samples)
    table = _Table(prompts.select(rows), max_length, pad, eos, forced, environment)
    asked = index[rows]
    joining = None
    if forced is not None and environment is None:
        joining = table.wait(shared(asked.tolist(), forced, max_length, eos))
    with torch.inference_mode():
        _play(policy, distinct, asked, choose, table, sampling, joining)
    return table.rollout(sampling)


def _play(
    policy: Policy,
    prompts: Prompts,
    asked: Tensor,
    choose: Choose,
    table: "_Table",
    sampling: Sampling,
    joining: Joining | None,
) -> None:
    """Fill the table.

    Args:
        policy: Who speaks.
        prompts: The distinct prompts.
        asked: Which of them each episode is about.
        choose: Makes a token of logits.
        table: What is filled.
        sampling: How `choose` makes its distribution.
        joining: Which episodes begin later, from the state of another one; None: all begin at once.
    """
    logits, state = policy.begin(prompts)
    held = torch.arange(len(asked), device=logits.device)  # which episode each row of the state is
    if joining is not None and joining.waiting:
        held = torch.tensor([e for e in range(len(asked)) if e not in joining.waiting], device=logits.device)
    if len(held) < len(asked) or len(asked) > len(prompts):
        logits, state = logits[asked[held]], state.select(asked[held])
    table.vocabulary = logits.shape[1]
    running = torch.ones_like(held, dtype=torch.bool)
    for t in range(table.max_length):
        more = joining.rows(t, held) if joining is not None else None
        if more is not None:
            rows = torch.cat([torch.arange(len(held), device=held.device), more[1]])
            logits, state, running = logits[rows], state.select(rows), running[rows]
            held = torch.cat([held, more[0]])
        position = torch.full_like(held, t)
        bans = table.bans(t, held, sampling)  # the rest of `sampling` needs no memory: `choose` sees to it
        if bans is not None:
            logits = sampling.allow(logits, position, bans)
        tokens, logprobs = choose(logits, position)
        tokens, chosen = table.feed(tokens, held)
        table.write(t, held, tokens, logprobs, chosen, running)
        ended = chosen & (tokens == table.eos) if table.eos is not None else torch.zeros_like(running)
        table.converse(t, held, tokens, chosen & running, ended)
        ended |= table.over(held)
        table.terminated[held] |= running & ended
        running &= ~ended
        if t + 1 == table.max_length:
            break
        if held.device.type == "cpu" or t % ASK_EVERY == ASK_EVERY - 1:
            left = int(running.sum())
            if left == 0:
                break
            if left <= COMPACT_BELOW * len(held):
                keep = survivors(running)
                tokens, state, held, running = tokens[keep], state.select(keep), held[keep], running[keep]
        logits, state = policy.step(tokens, state)


def survivors(running: Bool[Tensor, " b"]) -> Int[Tensor, " r"]:
    """Rows that still run; those at the end take the places of finished ones, so that few of them move."""
    rows = running.nonzero().squeeze(1)
    keep = torch.arange(len(rows), device=rows.device)
    keep[~running[: len(rows)]] = rows[rows >= len(rows)]
    return keep


class _Table:
    """The episodes as they are written, their queues of forced tokens and their conversations."""

    def __init__(
        self,
        prompts: Prompts,
        max_length: int,
        pad: int,
        eos: int | None,
        forced: Sequence[Sequence[int]] | None,
        environment: Environment | None,
    ) -> None:
        count, device = len(prompts), prompts.lengths.device
        if forced is not None and len(forced) != count:
            raise ValueError(f"play: got {len(forced)} forced openings for {count} episodes; give one list each.")
        self.prompts, self.max_length, self.pad, self.eos = prompts, max_length, pad, eos
        self.vocabulary = 0
        self.tokens = torch.full((count, max_length), pad, device=device)
        self.logprobs = torch.zeros(count, max_length, device=device)
        self.action_mask = torch.zeros(count, max_length, dtype=torch.bool, device=device)
        self.terminated = torch.zeros(count, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(count, dtype=torch.long, device=device)
        self.queues = [deque(opening) for opening in forced] if forced else [deque() for _ in range(count)]
        self.waiting = sum(len(queue) for queue in self.queues)
        self.talks = Conversations(environment, prompts) if environment else None
        self.said: list[list[int]] = [[] for _ in range(count)]
        # Episodes that end when their queue is empty.
        self.leaving = {episode for episode, queue in enumerate(self.queues) if queue and queue[-1] == eos}
        self.environment_reward = torch.zeros(count, max_length, device=device) if environment else None
        closes = self.talks is not None and self.talks.shut is not None
        self.closed = torch.zeros(count, max_length, dtype=torch.bool, device=device) if closes else None

    def wait(self, joining: Joining) -> Joining:
        """Write down the openings of the episodes that begin later: others are fed them meanwhile."""
        for length, (episodes, _) in joining.at.items():
            for episode in episodes:
                opening = list(self.queues[episode])
                self.tokens[episode, :length] = torch.tensor(opening, device=self.tokens.device, dtype=torch.long)
                self.lengths[episode] = length
                self.queues[episode].clear()
                self.waiting -= length
        return joining

    def bans(self, t: int, held: Tensor, sampling: Sampling) -> Bans | None:
        """What these rows may not choose now: a repeated n-gram, what the environment has closed."""
        bans = sampling.repeated(self.tokens[held, :t])
        if self.talks is None or self.talks.shut is None or self.closed is None:
            return bans
        shut = self.talks.shut.to(held.device)[held]
        self.closed[held, t] = shut
        return Bans.of(shut, sampling.closes).beside(bans) if bool(shut.any()) else bans

    def feed(self, tokens: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """Replace what was chosen by what waits in the queues; True where the choice stands."""
        chosen = torch.ones_like(tokens, dtype=torch.bool)
        if self.waiting == 0:
            return tokens, chosen
        tokens = tokens.clone()
        for row, episode in enumerate(held.tolist()):
            if self.queues[episode]:
                tokens[row], chosen[row] = self.queues[episode].popleft(), False
                self.waiting -= 1
        return tokens, chosen

    def write(self, t: int, held: Tensor, tokens: Tensor, logprobs: Tensor, chosen: Tensor, running: Tensor) -> None:
        """Write one token of every row; rows that have finished and are still held get what stands there anyway."""
        chosen = chosen & running
        self.tokens[held, t] = torch.where(running, tokens, self.pad)
        self.logprobs[held, t] = torch.where(chosen, logprobs, 0).to(self.logprobs.dtype)
        self.action_mask[held, t] = chosen
        self.lengths[held] += running

    def converse(self, t: int, held: Tensor, tokens: Tensor, chosen: Tensor, ended: Tensor) -> None:
        """Let the environment answer the rows that hand over."""
        if self.talks is None:
            return
        rows = zip(held.tolist(), tokens.tolist(), chosen.tolist(), ended.tolist(), strict=True)
        for episode, token, was_chosen, has_ended in rows:
            if was_chosen:
                self.said[episode].append(token)
                if self.talks.hands_over(self.said[episode], has_ended):
                    self._answer(t, episode)

    def over(self, held: Tensor) -> Tensor:
        """True where an environment has ended the episode, or an opening whose last token is the end token."""
        if not self.leaving:
            return torch.zeros_like(held, dtype=torch.bool)
        over = [episode in self.leaving and not self.queues[episode] for episode in held.tolist()]
        return torch.tensor(over, device=held.device)

    def _answer(self, t: int, episode: int) -> None:
        assert self.talks is not None and self.environment_reward is not None
        reply = self.talks.answer(episode, self.said[episode], self.tokens[episode, : t + 1], self.vocabulary)
        self.said[episode] = []
        self.environment_reward[episode, t] = reply.reward
        self.queues[episode].extend(reply.tokens)
        self.waiting += len(reply.tokens)
        if reply.done:
            self.leaving.add(episode)

    def rollout(self, sampling: Sampling) -> Rollout:
        return Rollout(
            prompts=self.prompts,
            tokens=self.tokens,
            lengths=self.lengths,
            action_mask=self.action_mask,
            logprobs=self.logprobs,
            terminated=self.terminated,
            sampling=sampling,
            environment_reward=self.environment_reward,
            closed=self.closed,
        ).trimmed()

"""The one loop that plays an episode: the policy chooses or is fed, an environment answers, finished rows leave."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.interfaces import Environment, Policy, State
from lrl_core.sampling import Sampling
from lrl_core.types import Prompts, Reply, Rollout

Choice = tuple[Int[Tensor, " b"], Float[Tensor, " b"]]
"""A token for each row and its log-probability under the distribution it was drawn from."""

Choose = Callable[[Float[Tensor, "b V"], Int[Tensor, " b"]], Choice]
"""From logits and the position of the token in its episode to a choice."""

COMPACT_BELOW = 0.75
"""Finished rows are dropped from the batch once no more than this share of it still runs: a drop copies the cache."""


@torch.no_grad()
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
    distinct, index = prompts.distinct()
    logits, state = policy.begin(distinct)
    rows = torch.arange(len(prompts), device=index.device).repeat_interleave(samples)
    table = _Table(prompts.select(rows), max_length, pad, eos, forced, environment, logits.shape[1])
    if samples > 1 or len(distinct) < len(prompts):
        logits, state = logits[index[rows]], state.select(index[rows])
    held = torch.arange(len(rows), device=index.device)  # which episode each row of the state is
    running = torch.ones_like(held, dtype=torch.bool)
    for t in range(max_length):
        position = torch.full_like(held, t)
        if sampling.no_repeat_ngram:  # the rest of `sampling` needs no memory: `choose` sees to it
            logits = sampling.allow(logits, position, sampling.repeated(table.tokens[held, :t]))
        tokens, logprobs = choose(logits, position)
        tokens, chosen = table.feed(tokens, held)
        ended = chosen & (tokens == eos) if eos is not None else torch.zeros_like(running)
        table.write(t, held[running], tokens[running], logprobs[running], chosen[running])
        table.converse(t, held, tokens, chosen & running, ended)
        ended |= table.over(held)
        table.finish(held[running & ended])
        running &= ~ended
        left = int(running.sum())
        if left == 0 or t + 1 == max_length:
            break
        if left <= COMPACT_BELOW * len(held):
            tokens, state, held, running = _drop_finished(running, tokens, state, held)
        logits, state = policy.step(tokens, state)
    return table.rollout(sampling)


def _drop_finished(running: Tensor, tokens: Tensor, state: State, held: Tensor) -> tuple[Tensor, State, Tensor, Tensor]:
    keep = running.nonzero().squeeze(1)
    return tokens[keep], state.select(keep), held[keep], running[keep]


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
        vocabulary: int,
    ) -> None:
        count, device = len(prompts), prompts.lengths.device
        if forced is not None and len(forced) != count:
            raise ValueError(f"play: got {len(forced)} forced openings for {count} episodes; give one list each.")
        self.prompts, self.pad, self.vocabulary = prompts, pad, vocabulary
        self.tokens = torch.full((count, max_length), pad, device=device)
        self.logprobs = torch.zeros(count, max_length, device=device)
        self.action_mask = torch.zeros(count, max_length, dtype=torch.bool, device=device)
        self.terminated = torch.zeros(count, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(count, dtype=torch.long, device=device)
        self.queues = [deque(opening) for opening in forced] if forced else [deque() for _ in range(count)]
        self.waiting = sum(len(queue) for queue in self.queues)
        self.environment = environment
        self.states: list[Any] = environment.start(prompts) if environment else []
        self.said: list[list[int]] = [[] for _ in self.states]
        # Episodes that end when their queue is empty.
        self.leaving = {episode for episode, queue in enumerate(self.queues) if queue and queue[-1] == eos}
        self.environment_reward = torch.zeros(count, max_length, device=device) if environment else None

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

    def write(self, t: int, episodes: Tensor, tokens: Tensor, logprobs: Tensor, chosen: Tensor) -> None:
        self.tokens[episodes, t] = tokens
        self.logprobs[episodes, t] = torch.where(chosen, logprobs, 0).to(self.logprobs.dtype)
        self.action_mask[episodes, t] = chosen
        self.lengths[episodes] = t + 1

    def finish(self, episodes: Tensor) -> None:
        self.terminated[episodes] = True

    def converse(self, t: int, held: Tensor, tokens: Tensor, chosen: Tensor, ended: Tensor) -> None:
        """Let the environment answer the rows that hand over."""
        if self.environment is None:
            return
        turn_ends = set(self.environment.turn_ends)
        for episode, token, was_chosen, has_ended in zip(
            held.tolist(), tokens.tolist(), chosen.tolist(), ended.tolist(), strict=True
        ):
            if was_chosen:
                self.said[episode].append(token)
                if token in turn_ends or has_ended:
                    self._answer(t, episode)

    def over(self, held: Tensor) -> Tensor:
        """True where an environment has ended the episode, or an opening whose last token is the end token."""
        if not self.leaving:
            return torch.zeros_like(held, dtype=torch.bool)
        over = [episode in self.leaving and not self.queues[episode] for episode in held.tolist()]
        return torch.tensor(over, device=held.device)

    def _answer(self, t: int, episode: int) -> None:
        assert self.environment is not None and self.environment_reward is not None
        try:
            reply = self.environment.reply(self.states[episode], self.said[episode])
        except Exception as error:
            raise RuntimeError(self._complaint(episode, t, f"raised {type(error).__name__}: {error}")) from error
        self._admit(reply, episode, t)
        self.said[episode] = []
        self.environment_reward[episode, t] = reply.reward
        self.queues[episode].extend(reply.tokens)
        self.waiting += len(reply.tokens)
        if reply.done:
            self.leaving.add(episode)

    def _admit(self, reply: Reply, episode: int, t: int) -> None:
        strange = [token for token in reply.tokens if not 0 <= token < self.vocabulary]
        if strange:
            expected = f"said token ids {strange}; expected ids from 0 to {self.vocabulary - 1}. Mend its reply()"
            raise ValueError(self._complaint(episode, t, expected))

    def _complaint(self, episode: int, t: int, what: str) -> str:
        transcript = self.tokens[episode, : t + 1].tolist()
        return (
            f"Environment {type(self.environment).__name__}, episode {episode}: {what}. Token ids so far: {transcript}."
        )

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
        ).trimmed()

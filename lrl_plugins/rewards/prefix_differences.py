"""Credit for every token: what it adds to the reward of the episode so far."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.reports import texts_of
from lrl_core.scoring import judge
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.bleu import BLEU


class PrefixDifferences(Reward):
    """Pays each token the difference that it makes: r_t = R(y_1..t) - R(y_1..t-1) (Bahdanau et al. 2017, section 3.3).

    R is any reward, asked of all beginnings of all episodes in one batch. R of nothing is taken for 0, so that the
    differences add up to R of the whole episode and what is learnt in expectation stays the same (potential-based
    shaping, Ng et al. 1999); only credit comes earlier. A beginning that R cannot judge is passed over: its token is
    paid with the next. The paper's BLEU is BLEU with smoothing: add_one_all.

    It costs as many scores as there are tokens: choose an R that is quick, or a larger `every`.

    Args:
        reward: R; it must judge each episode by itself.
        every: Chosen tokens from one beginning that is scored to the next; the whole episode always is.
    """

    def __init__(self, reward: Reward | None = None, every: int = 1) -> None:
        super().__init__()
        self.reward = BLEU(smoothing="add_one_all") if reward is None else reward
        self.every = every
        if every < 1:
            raise ValueError(f"PrefixDifferences: every is {every}; expected a number of tokens >= 1, such as 1.")
        if not self.reward.rowwise:
            raise ValueError(
                f"PrefixDifferences: got the reward {type(reward).__name__}, whose scores depend on the other episodes "
                "of the batch; expected one that judges each by itself, because beginnings of episodes stand in the "
                "batch too. Use another reward."
            )
        self.comparable, self.concurrent = self.reward.comparable, self.reward.concurrent

    def bind(self, facts: TaskFacts) -> None:
        self.tokenizer, self.environment = facts.tokenizer, facts.environment

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where the reward cannot judge the whole of it."""
        row, place = scored_places(rollout, self.every)
        signal = judge(self.reward, self._beginnings(rollout, row, place))
        whole = torch.arange(len(row), len(row) + len(rollout), device=row.device)
        total = signal.total[whole]
        by_token = differences(signal.total[: len(row)], row, place, total, rollout)
        return RewardSignal(total, by_token, parts={name: part[whole] for name, part in signal.parts.items()})

    def _beginnings(self, rollout: Rollout, row: Int[Tensor, " N"], place: Int[Tensor, " N"]) -> Rollout:
        """The episodes cut after these places, and behind them the episodes themselves."""
        count, device = len(row), row.device
        part = rollout.select(torch.cat([row, torch.arange(len(rollout), device=device)]))
        lengths = torch.cat([place + 1, rollout.lengths])
        inside = length_mask(lengths, rollout.tokens.shape[1])
        part = replace(
            part,
            tokens=part.tokens.masked_fill(~inside, self.tokenizer.pad),
            lengths=lengths,
            action_mask=part.action_mask & inside,
            logprobs=part.logprobs.masked_fill(~inside, 0),
            terminated=part.terminated & (torch.arange(len(part), device=device) >= count),
            environment_reward=_within(part.environment_reward, inside),
            reference_logprobs=_within(part.reference_logprobs, inside),
        )
        if rollout.texts is None:
            return part
        cut = part.select(torch.arange(count, device=device))
        return replace(part, texts=(*texts_of(cut, self.tokenizer, self.environment), *rollout.texts))


def _within(line: Float[Tensor, "N T"] | None, inside: Bool[Tensor, "N T"]) -> Float[Tensor, "N T"] | None:
    return None if line is None else line.masked_fill(~inside, 0)


def last_place(rollout: Rollout) -> Int[Tensor, " B"]:
    """Place of each episode's last chosen token; of its last one where the policy chose none, -1 where it is empty."""
    steps = torch.arange(rollout.tokens.shape[1], device=rollout.tokens.device)
    chosen = torch.where(rollout.action_mask, steps, -1)
    last = chosen.amax(1) if chosen.shape[1] else torch.full_like(rollout.lengths, -1)
    return torch.where(last >= 0, last, rollout.lengths - 1)


def scored_places(rollout: Rollout, every: int) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """Rows and columns, in reading order, of the tokens after which an episode's beginning is scored.

    Args:
        rollout: The episodes.
        every: Each so-many-th chosen token is one of them; the last one is not, as the whole episode ends there.
    """
    mask = rollout.action_mask
    nth = mask.cumsum(1) % every == 0
    steps = torch.arange(mask.shape[1], device=mask.device)
    row, place = (mask & nth & (steps < last_place(rollout)[:, None])).nonzero(as_tuple=True)
    return row, place


def differences(
    worth: Float[Tensor, " N"],
    row: Int[Tensor, " N"],
    place: Int[Tensor, " N"],
    total: Float[Tensor, " B"],
    rollout: Rollout,
) -> Float[Tensor, "B T"]:
    """What the worth of an episode changes by from each scored token to the next; the sum of a row is its total.

    Args:
        worth: Of the beginnings; NaN where it is unknown.
        row: Their rows, in reading order.
        place: Their last tokens.
        total: Worth of the whole episodes; rows that are NaN get nothing.
        rollout: The episodes.
    """
    last = last_place(rollout)
    known = ~worth.isnan() & ~total.isnan()[row]
    row, place, worth = row[known], place[known], worth[known]
    ends = ((last >= 0) & ~total.isnan()).nonzero().squeeze(1)
    rows, places = torch.cat([row, ends]), torch.cat([place, last[ends]])
    worths = torch.cat([worth, total[ends]])
    order = (rows * (rollout.tokens.shape[1] + 1) + places).argsort()
    rows, places, worths = rows[order], places[order], worths[order]
    before = torch.nn.functional.pad(worths[:-1], (1, 0))
    begins = torch.nn.functional.pad(rows[1:] != rows[:-1], (1, 0), value=True)
    steps = worths - torch.where(begins[: len(rows)], 0, before[: len(rows)])
    return total.new_zeros(rollout.tokens.shape).index_put((rows, places), steps)

"""Credit for each token by playing on from it: what the policy earns on average once the token has been said."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrl_core.functional import credit
from lrl_core.interfaces import Baseline, Decoder, Reward, Sampler, TaskFacts, components
from lrl_core.types import Advantage, RewardSignal, Rollout


class MonteCarlo(Baseline):
    """Credits a token with the mean reward of continuations that begin with the episode up to it (Yu 2017, eq. 4).

    Q_t is the mean over `samples` continuations of the first t tokens, and the episode's own reward for the last token.
    With compare: nothing it is the token's weight (SeqGAN); with compare: before the weight is Q_t - Q_{t-1}, where Q_0
    is estimated by continuations of nothing (Kazemnejad et al. 2024, VinePPO, arXiv 2410.01679). Both leave the
    expected gradient what it is if the policy itself plays on. Where increments of the reward are known, it is the
    reward to go that is averaged.

    A continuation that could not be judged is left out of the mean, and a place without any is passed over. While the
    policy holds still (learners_first), nothing is played and all advantages are 0. For the reward of the whole episode
    on every token, without continuations, take Constant.

    Args:
        samples: Continuations per place.
        policy: Who plays on: `current`, the policy that learns, or `delayed`, the reference policy, which follows it as
            a moving average where the recipe says model.reference: {decay: 0.8}.
        compare: What Q is compared with: `nothing`, or the Q of the token `before`.
        stride: Play on from every so many tokens only; a token is then credited with the next Q that is known, and
            compared with the last one before it. 1 is exact and dearest.
        rows: Continuations played at a time: a limit on memory.
    """

    def __init__(
        self,
        samples: int = 16,
        policy: Literal["current", "delayed"] = "current",
        compare: Literal["nothing", "before"] = "nothing",
        stride: int = 1,
        rows: int = 2048,
    ) -> None:
        super().__init__()
        if min(samples, stride, rows) < 1:
            raise ValueError(
                f"MonteCarlo: got samples {samples}, stride {stride} and rows {rows}; expected each >= 1. Correct the "
                "recipe."
            )
        if policy not in ("current", "delayed") or compare not in ("nothing", "before"):
            raise ValueError(
                f"MonteCarlo: got policy {policy!r} and compare {compare!r}; expected current or delayed, and nothing "
                "or before. Correct the one that differs."
            )
        self.samples, self.policy, self.compare, self.stride, self.rows = samples, policy, compare, stride, rows

    def bind(self, facts: TaskFacts) -> None:
        if facts.environment is not None:
            raise ValueError(
                f"MonteCarlo: got the environment {type(facts.environment).__name__}, expected a task in which nobody "
                "answers: a conversation cannot be taken up again in the middle. Use LeaveOneOut or Value."
            )

    def check(self, sampler: Sampler) -> None:
        if self.policy == "delayed" and sampler.delayed is None:
            raise ValueError(
                "MonteCarlo: got policy: delayed in a recipe without a reference policy of its own weights; expected "
                "one that follows the policy. Add model.reference: {decay: 0.8}, or set policy: current."
            )
        if sampler.decoder is not None and type(sampler.decoder).complete is Decoder.complete:
            raise ValueError(
                f"MonteCarlo: got the decoder {type(sampler.decoder).__name__}, which cannot go on from given tokens; "
                "expected one that plays token by token. Use Sample."
            )
        parts = components(sampler.reward) if sampler.reward else []
        for part in parts:
            if isinstance(part, Reward) and not (part.comparable and part.rowwise):
                raise ValueError(
                    f"MonteCarlo: got the reward {type(part).__name__}, which looks at the whole batch; expected one "
                    "that judges each episode by itself, because continuations are scored apart. Use another reward, "
                    "or weights instead of normalisers."
                )

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        credits = torch.where(reward.judged[:, None], credit(rollout, reward), 0)
        if sampler.holding:
            return Advantage(torch.zeros_like(credits))
        taught = rollout.action_mask & reward.judged[:, None]
        gain = self._continued(rollout, self._places(taught), sampler).to(credits) - credits
        weight = credits + next_known(gain)
        if self.compare == "before":
            weight = weight - credits - last_known(gain)
        return Advantage(torch.where(taught & weight.isfinite(), weight, 0))

    def _places(self, taught: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Before which tokens continuations begin."""
        said = taught.cumsum(1) - 1  # tokens that the policy had said by then
        wanted = taught & (said % self.stride == 0)
        return wanted if self.compare == "before" else wanted & (said > 0)

    def _continued(self, rollout: Rollout, places: Bool[Tensor, "B T"], sampler: Sampler) -> Float[Tensor, "B T"]:
        """Mean reward to go from these places, over continuations; NaN elsewhere and where none could be judged."""
        mean = torch.full(places.shape, torch.nan, device=places.device, dtype=torch.float64)
        policy = sampler.delayed if self.policy == "delayed" else None
        lines = rollout.tokens.tolist()
        rows, starts = (index.repeat_interleave(self.samples) for index in places.nonzero(as_tuple=True))
        found = []
        for row, start in zip(rows.split(self.rows), starts.split(self.rows), strict=True):
            openings = [lines[i][:t] for i, t in zip(row.tolist(), start.tolist(), strict=True)]
            if openings:
                drawn, signal = sampler.complete(rollout.prompts.select(row), openings, policy)
                to_go = credit(drawn, signal).gather(1, start[:, None]).squeeze(1)
                found.append(torch.where(signal.judged, to_go, torch.nan).double())
        if found:
            mean[places] = torch.cat(found).view(-1, self.samples).nanmean(1)
        return mean


def next_known(values: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The first finite value behind each place; 0 where there is none."""
    steps = torch.arange(values.shape[1], device=values.device)
    at = torch.where(values.isfinite(), steps, values.shape[1])
    behind = torch.nn.functional.pad(at.flip(1).cummin(1).values.flip(1)[:, 1:], (0, 1), value=values.shape[1])
    return torch.nn.functional.pad(values, (0, 1)).gather(1, behind)


def last_known(values: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The last finite value at or before each place; NaN where there is none."""
    steps = torch.arange(values.shape[1], device=values.device)
    at = torch.where(values.isfinite(), steps, -1).cummax(1).values
    return torch.where(at >= 0, values.gather(1, at.clamp(min=0)), torch.nan)

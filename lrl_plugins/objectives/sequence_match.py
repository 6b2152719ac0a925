"""SequenceMatch: imitation that also learns from the model's own lines, and from mistakes that are taken back."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from lrl_core.functional import masked_mean
from lrl_core.interfaces import Objective, Sampler, TaskFacts
from lrl_core.sampling import Sampling
from lrl_core.types import Experience, Loss, PolicyOutput, Rollout
from lrl_plugins.objectives.occupancy import Divergence, Steps, discounts, phi, steps
from lrl_plugins.objectives.shared import human_answers, refuse_no_draws


class SequenceMatch(Objective):
    """Brings the states that the policy gets into, and what it does there, near those of the data.

    Maximum likelihood says nothing about lines that are no beginnings of human ones; this loss compares occupancies
    of states and actions instead (Cundy and Ermon 2023, arXiv 2306.05426), without a reward model and without a policy
    gradient (Garg et al. 2021, IQ-Learn, arXiv 2106.12142). With logits l, V(s) = logsumexp l(.|s) and
    r(s, a) = l(a|s) - gamma V(s') it is

        -mean_data phi(r) + 1/2 mean_data (V - gamma V') + 1/2 mean_model (V - gamma V')
        + 1/(4 alpha) 1/2 (mean_data r^2 + mean_model r^2)

    the last line for chi2_mixture alone. Gradients flow through V(s') too. Model samples need not be fresh: a replay
    may show older ones. Both kinds of lines are read without dropout, under the bans of the drawn ones and without
    their temperature, so draw with temperature 1; a human token that is banned (an unknown word) is no term.

    With a tokenizer that has a backspace, the state after it is the shorter line. A token of the data that target_mask
    leaves out and the next one takes back is a planted mistake: it is no target, the backspace is, and the choice
    before leads to the state without it. Where a limit cuts an episode, V after its last token is unknown, and that
    token is no term.

    With chi2_mixture |r| stays below about 4 alpha (Al-Hafez et al. 2023, LS-IQ, arXiv 2303.00599), so one token can
    be preferred to another by a factor of e^(8 alpha) at most per step: large vocabularies want a large alpha. So does
    a policy that comes from maximum likelihood, which leaves V at any number: where it is far from the 0 after the
    end, a small alpha takes the reward of ending a text for too large, and texts get longer at first.

    Logged: implicit_reward/data and /model (mean r), value/data and /model (mean V), cross_entropy (of the data) and,
    with a backspace, deletions/data and /model (its share of the chosen tokens).

    Args:
        divergence: chi2_mixture (of the data and the mean of data and model, bounded where the data has no mass),
            chi2, kl, js or hellinger; linear with value_on data is maximum likelihood, whatever gamma is.
        alpha: Room for rewards with chi2_mixture and chi2, > 0; that of IQ-Learn by default.
        discount: gamma, in (0, 1]. The default is ours.
        occupancy: Whether the t-th choice of a line weighs gamma^t and means are over lines, as in the occupancies of
            the derivation; False: plain means over tokens, as in practice.
        value_on: Where V - gamma V' is evaluated: half on each of data and model (both), or on the data alone, which
            asks for no episodes unless chi2_mixture does.
        terminal: V after the end token: 0 (zero), or that of repeating the end token for ever, with its further terms
            in closed form (absorbing; it needs a discount below 1, and reads one more token of each line).
    """

    judges = False
    compares = False

    def __init__(
        self,
        divergence: Divergence = "chi2_mixture",
        alpha: float = 0.5,
        discount: float = 0.998,
        occupancy: bool = False,
        value_on: Literal["both", "data"] = "both",
        terminal: Literal["zero", "absorbing"] = "zero",
    ) -> None:
        super().__init__()
        _refuse_numbers(divergence, alpha, discount, value_on, terminal)
        self.divergence, self.alpha, self.discount = divergence, alpha, discount
        self.occupancy, self.value_on, self.absorbing = occupancy, value_on, terminal == "absorbing"
        self.samples = value_on == "both" or divergence == "chi2_mixture"
        self.backspace: int | None = None
        self.converses = False

    def bind(self, facts: TaskFacts) -> None:
        self.backspace = facts.tokenizer.backspace
        self.converses = facts.environment is not None

    def check(self, sampler: Sampler) -> None:
        if self.converses and self.backspace is not None:
            raise ValueError(
                "SequenceMatch: got a task with an environment and a tokenizer with a backspace, where a word of the "
                "environment cannot be told from a planted mistake. Expected one of the two; set data.backspace to "
                "false, or use a task without an environment."
            )
        if self.samples:
            refuse_no_draws("SequenceMatch", sampler)

    def count(self, experience: Experience) -> Tensor:
        return torch.stack([self._things(line) for line in self._lines(experience)])

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        lines = self._lines(experience)
        share = 0.5 if self.value_on == "both" else 1.0
        data, *drawn = (self._read(policy, line) for line in lines)
        losses = data.weight * (share * data.drop - phi(data.reward, self.divergence, self.alpha) + self._square(data))
        totals, metrics = [losses.sum()], {"cross_entropy": -masked_mean(data.logprobs, data.weight > 0)}
        metrics |= self._watch("data", lines[0], data)
        for model in drawn:
            value = 0.5 * model.drop if self.value_on == "both" else 0
            totals.append((model.weight * (value + self._square(model))).sum())
            metrics |= self._watch("model", lines[1], model)
        return Loss(torch.stack(totals), metrics)

    def _square(self, read: "Read") -> Tensor | float:
        return read.reward.square() / (8 * self.alpha) if self.divergence == "chi2_mixture" else 0.0

    def _lines(self, experience: Experience) -> list["Line"]:
        """The human answers and, where they are needed, the episodes."""
        answers, rollout = human_answers("SequenceMatch", experience), experience.rollout
        if not self.samples:
            return [self._line(answers, answers.action_mask)]
        assert rollout is not None
        alike = Sampling(banned=rollout.sampling.banned if rollout.sampling else ())
        data = self._line(replace(answers, sampling=alike), answers.action_mask)
        return [data, self._line(replace(rollout, sampling=alike), experience.learn_mask)]

    def _line(self, rollout: Rollout, learnt: Bool[Tensor, "B T"]) -> "Line":
        if rollout.sampling is not None and rollout.sampling.banned:
            banned = torch.tensor(rollout.sampling.banned, device=learnt.device)
            learnt = learnt & ~torch.isin(rollout.tokens, banned)
        return with_one_more_end(rollout, learnt) if self.absorbing else Line(rollout, learnt)

    def _steps(self, line: "Line", logits: Float[Tensor, "B T"], values: Float[Tensor, "B T"]) -> Steps:
        rollout, planted = line.rollout, None
        if self.backspace is not None:
            planted = (rollout.tokens == self.backspace) & ~pad(rollout.action_mask, (1, -1), value=True)
        repeats = None if line.repeated is None else line.repeated.any(1)
        return steps(logits, values, rollout.action_mask, rollout.terminated, self.discount, planted, repeats)

    def _weights(self, line: "Line") -> Float[Tensor, "B T"]:
        """Weight of each term in its sum; 0 where there is none."""
        nothing = torch.zeros(line.rollout.tokens.shape, device=line.learnt.device)
        terms = line.learnt & self._steps(line, nothing, nothing).known
        if not self.occupancy:
            return terms.float()
        weights = discounts(line.rollout.action_mask, self.discount)
        if line.repeated is not None:  # gamma^t + gamma^(t+1) + ...
            weights = torch.where(line.repeated, weights / (1 - self.discount), weights)
        return torch.where(terms, weights, 0)

    def _things(self, line: "Line") -> Float[Tensor, ""]:
        taught = self._weights(line) > 0
        return (taught.any(1) if self.occupancy else taught).sum().float()

    def _read(self, policy: Callable[[Rollout], PolicyOutput], line: "Line") -> "Read":
        weight = self._weights(line)
        if len(line.rollout) == 0:  # a micro-batch of human answers alone
            return Read(weight, weight, weight, weight, weight)
        output = policy(line.rollout)
        logprobs = torch.where(weight > 0, output.logprobs, 0)
        reward, drop, _ = self._steps(line, logprobs + output.log_z, output.log_z)
        reward, drop = (torch.where(weight > 0, own, 0) for own in (reward, drop))
        return Read(reward, drop, weight, logprobs.detach(), output.log_z.detach())

    def _watch(self, which: str, line: "Line", read: "Read") -> dict[str, Tensor]:
        terms = read.weight > 0
        metrics = {
            f"implicit_reward/{which}": masked_mean(read.reward.detach(), terms),
            f"value/{which}": masked_mean(read.values, terms),
        }
        if self.backspace is not None:
            metrics[f"deletions/{which}"] = masked_mean((line.rollout.tokens == self.backspace).float(), line.learnt)
        return metrics


class Line(NamedTuple):
    """Lines of one kind, and what is learnt from them."""

    rollout: Rollout
    """What is read."""
    learnt: Bool[Tensor, "B T"]
    """Tokens that teach."""
    repeated: Bool[Tensor, "B T"] | None = None
    """The end tokens that stand for all that follow them for ever; None where V is 0 after the end."""


class Read(NamedTuple):
    """What the policy says of them; 0 where nothing is learnt."""

    reward: Float[Tensor, "B T"]
    """r, with gradients."""
    drop: Float[Tensor, "B T"]
    """V(s) - gamma V(s'), with gradients."""
    weight: Float[Tensor, "B T"]
    """Of each term in its sum."""
    logprobs: Float[Tensor, "B T"]
    """Of the tokens."""
    values: Float[Tensor, "B T"]
    """V(s)."""


def with_one_more_end(rollout: Rollout, learnt: Bool[Tensor, "B T"]) -> Line:
    """The lines in one more column, where those that ended by a token of the policy have that token once more."""
    width = rollout.tokens.shape[1]
    last = (rollout.lengths - 1).clamp(min=0)[:, None]
    ended = rollout.terminated & rollout.action_mask.gather(1, last).squeeze(1)
    repeated = (torch.arange(width + 1, device=learnt.device) == rollout.lengths[:, None]) & ended[:, None]
    ends = rollout.tokens.gather(1, last).expand(-1, width + 1)
    longer = replace(
        rollout,
        tokens=torch.where(repeated, ends, pad(rollout.tokens, (0, 1))),
        lengths=rollout.lengths + ended.long(),
        action_mask=pad(rollout.action_mask, (0, 1)) | repeated,
        logprobs=pad(rollout.logprobs, (0, 1)),
        environment_reward=None,
        closed=None,
        follows=None,
        reference_logprobs=None,
    )
    taught = pad(learnt, (0, 1))
    return Line(longer, taught | (repeated & pad(learnt, (1, 0))), repeated)


def _refuse_numbers(divergence: str, alpha: float, discount: float, value_on: str, terminal: str) -> None:
    expected = [("alpha", alpha, "> 0", alpha > 0), ("discount", discount, "in (0, 1]", 0 < discount <= 1)]
    for name, got, interval, holds in expected:
        if not holds:
            raise ValueError(f"SequenceMatch: {name} is {got}; expected a number {interval}. Correct the recipe.")
    if terminal == "absorbing" and discount == 1:
        raise ValueError(
            "SequenceMatch: terminal is absorbing and discount 1, where the end token is repeated for ever without "
            "losing weight; expected a discount below 1. Lower it, or set terminal to zero."
        )
    if divergence == "linear" and value_on == "both":
        raise ValueError(
            "SequenceMatch: divergence is linear and value_on both, whose loss has no lowest point; expected value_on "
            "data, which is maximum likelihood. Set it, or choose another divergence, such as chi2_mixture."
        )

"""Minimum-risk training: the expected risk under the policy renormalised over the samples of a prompt."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.functional import group_index, masked_mean
from lrl_core.interfaces import Objective, Sampler
from lrl_core.types import Experience, Loss, PolicyOutput, Rollout
from lrl_plugins.objectives.shared import (
    human_answers,
    ratio_metrics,
    refuse_no_draws,
    refuse_off_policy,
    refuse_one_sample,
)


class MinimumRisk(Objective):
    """The risk (minus the reward) expected under Q, the policy sharpened over a prompt's samples (Shen 2016).

    Q(y) is proportional to P(y|x)^alpha over the distinct samples of one prompt; the gradient flows through Q. A shift
    of all rewards changes nothing, and a prompt with one distinct sample teaches nothing. It reads rewards, not
    advantages, so name the baseline Constant. Add cross-entropy on the human answer with Sum.

    Args:
        alpha: Sharpness of Q, > 0. The paper's 0.005 makes Q nearly uniform over a hundred samples; with a few
            samples take 1, or raise the learning rate.
        gold: Whether the human answers are among the candidates.
        gold_reward: The reward of a human answer that no sample equals; 1 where the reward is a score in [0, 1].
    """

    def __init__(self, alpha: float = 0.005, gold: bool = False, gold_reward: float = 1.0) -> None:
        super().__init__()
        if alpha <= 0:
            raise ValueError(f"MinimumRisk: alpha is {alpha}; expected a number > 0.")
        self.alpha, self.gold, self.gold_reward = alpha, gold, gold_reward

    def check(self, sampler: Sampler) -> None:
        refuse_no_draws("MinimumRisk", sampler)
        refuse_off_policy("MinimumRisk", sampler)
        if not self.gold:
            refuse_one_sample("MinimumRisk", sampler)

    def count(self, experience: Experience) -> Tensor:
        assert experience.rollout is not None
        assert experience.reward is not None
        groups = experience.rollout.prompts.group[experience.reward.judged].unique()
        return torch.tensor(float(len(groups)), device=groups.device)

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        rollout, reward = experience.rollout, experience.reward
        assert rollout is not None
        assert reward is not None
        output = policy(rollout)
        kept = distinct(rollout, reward.judged)
        scores, risks, groups = output.logprobs.sum(1)[kept], -reward.total[kept], rollout.prompts.group[kept]
        if self.gold:
            answers = _new_answers(human_answers("MinimumRisk", experience), rollout, kept)
            read = policy(_as_drawn(answers, rollout)).logprobs.sum(1)
            scores = torch.cat([scores, read])
            risks = torch.cat([risks, torch.full_like(read, -self.gold_reward, dtype=risks.dtype)])
            groups = torch.cat([groups, answers.prompts.group])
        risk = expected_risk(scores, risks, groups, self.alpha)
        mask = experience.learn_mask
        return Loss(
            risk.sum(),
            {
                "risk": risk.detach().mean() if len(risk) else risk.detach().sum(),
                "distinct": masked_mean(kept.float(), reward.judged),
                "entropy": masked_mean(output.entropy.detach(), mask),
            }
            | ratio_metrics(output.logprobs, rollout, mask),
        )


def expected_risk(
    scores: Float[Tensor, " N"], risks: Float[Tensor, " N"], group: Int[Tensor, " N"], alpha: float
) -> Float[Tensor, " G"]:
    """For each group the sum over its members of Q times risk, Q = softmax(alpha * scores) (Shen 2016, eq. 13).

    Args:
        scores: Log-probability of each candidate as a whole, with gradients.
        risks: What each candidate costs.
        group: Equal number = same prompt.
        alpha: Sharpness.
    """
    index, groups = group_index(group)
    belongs = index == torch.arange(groups, device=index.device)[:, None]
    sharpened = (alpha * scores).expand(groups, -1).masked_fill(~belongs, -torch.inf)
    return (sharpened.softmax(1) * risks).sum(1)


def distinct(rollout: Rollout, judged: Bool[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """True on the first judged episode of every sequence that a prompt's samples hold."""
    seen: set[tuple[int, ...]] = set()
    kept = []
    for line, fit in zip(_lines(rollout), judged.tolist(), strict=True):
        kept.append(fit and line not in seen)
        if fit:
            seen.add(line)
    return torch.tensor(kept, dtype=torch.bool, device=judged.device)


def _lines(rollout: Rollout) -> list[tuple[int, ...]]:
    """Group and tokens of every row."""
    rows = zip(rollout.prompts.group.tolist(), rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)
    return [(group, *tokens[:length]) for group, tokens, length in rows]


def _new_answers(expert: Rollout, rollout: Rollout, kept: Bool[Tensor, " B"]) -> Rollout:
    """The distinct human answers that no judged sample equals, in groups that have a judged sample."""
    drawn = {line for line, judged in zip(_lines(rollout), kept.tolist(), strict=True) if judged}
    groups = {line[0] for line in drawn}
    fit = [line not in drawn and line[0] in groups for line in _lines(expert)]
    rows = distinct(expert, torch.tensor(fit, dtype=torch.bool, device=expert.tokens.device))
    return expert.select(rows.nonzero().squeeze(1))


def _as_drawn(answers: Rollout, rollout: Rollout) -> Rollout:
    """Human answers under the samples' distribution; what is never drawn may still be what a human said."""
    if rollout.sampling is None:
        return answers
    free = replace(rollout.sampling, banned=(), min_length=0, limit=None, no_repeat_ngram=0)
    return replace(answers, sampling=free)

"""Direct preference optimisation: the policy itself is the reward model, and learns from pairs without a reward."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from lrl_core.divergence import log_ratio_by_episode
from lrl_core.functional import group_index
from lrl_core.interfaces import Objective, Sampler, TaskFacts
from lrl_core.sampling import Sampling
from lrl_core.types import Experience, Loss, PolicyOutput, Prompts, Rollout
from lrl_plugins.objectives.shared import human_answers, ratio_metrics, refuse_no_draws, refuse_one_sample

Form: TypeAlias = Literal["sigmoid", "ipo", "hinge", "robust"]
"""How the margin h of a pair becomes a loss; see `pair_losses`."""
Ranking: TypeAlias = Literal["all", "best_each", "best_worst"]
"""Which pairs of a group are compared; see `preferred_pairs`."""


class DPO(Objective):
    """Makes the better answer of a pair more probable than the worse one, compared with a reference policy.

    -log sigma(beta h) of every pair (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), where h is the difference of the
    answers' log-ratios, each log pi(y|x) - log pi_ref(y|x) summed over its tokens, EOS included. Its optimum is
    pi_ref exp(r / beta) / Z for the reward r that the preferences follow. A shift of all log-ratios of a prompt changes
    nothing, and answers that tie teach nothing. `loss: ipo` is Azar et al. 2023 (arXiv 2310.12036, eq. 17).

    `pairs: stored` learns from ranked human answers (a task such as Preferences; with the replay Expert nothing is
    drawn, so decoder, reward and baseline are not needed). `pairs: drawn` compares the samples of a prompt by their
    rewards, as online DPO does (Guo et al. 2024, arXiv 2402.04792); name the baseline Constant. Human answers are read
    without dropout, as the reference reads them.

    Logged: dpo/accuracy (share of pairs whose better answer has the higher implicit reward, beta times the log-ratio),
    dpo/margin, dpo/chosen and dpo/rejected (implicit rewards). Both falling while the margin grows is the known way in
    which a policy forgets to speak.

    Args:
        pairs: `stored` compares the ranked human answers, `drawn` the episodes by their rewards.
        loss: `sigmoid` is DPO; `ipo` pulls h to 1 / (2 beta), however sure the labels are; `hinge` is
            max(0, 1 - beta h) (Zhao et al. 2023, SLiC); `robust` is sigmoid made unbiased for labels of which the share
            label_smoothing is wrong (Chowdhury et al. 2024, arXiv 2403.00409).
        beta: Price of leaving the reference, > 0: small lets the policy go far.
        label_smoothing: Share of pairs believed to be the wrong way round, in [0, 0.5): for sigmoid (conservative DPO)
            and robust.
        length_normalised: Whether an answer's log-ratio is divided by its number of tokens, so that length neither pays
            nor costs; with ipo as in its reference code. beta then wants to be larger, 2 say.
        ranking: Of answers that are ranked or rewarded: `all` compares every two that differ, `best_each` the best with
            each worse one, `best_worst` the best with the worst. Where several are best or worst, each of them.
        unfinished: With drawn pairs: an episode that the length limit cut is judged by its reward (`count`), or loses
            against every finished one (`lose`).
    """

    def __init__(
        self,
        pairs: Literal["stored", "drawn"] = "stored",
        loss: Form = "sigmoid",
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        length_normalised: bool = False,
        ranking: Ranking = "all",
        unfinished: Literal["count", "lose"] = "count",
    ) -> None:
        super().__init__()
        _refuse_numbers(loss, beta, label_smoothing)
        if unfinished == "lose" and pairs == "stored":
            raise ValueError(
                "DPO: unfinished is 'lose' with pairs 'stored', but no limit cuts a stored answer while it is drawn. "
                "Expected pairs 'drawn'; set it, or leave unfinished out."
            )
        self.pairs, self.form, self.beta, self.label_smoothing = pairs, loss, beta, label_smoothing
        self.length_normalised, self.ranking, self.unfinished = length_normalised, ranking, unfinished
        self.samples, self.compares_answers = pairs == "drawn", pairs == "stored"
        self.example: Prompts | None = None

    def bind(self, facts: TaskFacts) -> None:
        self.example = facts.example

    def check(self, sampler: Sampler) -> None:
        if sampler.reference is None:
            raise ValueError(
                "DPO: the recipe names no reference policy to compare the answers' probabilities with. Expected "
                "model.reference, such as {path: null} for the policy as it is when this phase begins; add it."
            )
        if self.pairs == "drawn":
            refuse_no_draws("DPO", sampler)
            refuse_one_sample("DPO", sampler)
        elif self.example is not None:
            ranks_of(self.example)

    def count(self, experience: Experience) -> Tensor:
        answers, worth = self._judged(experience)
        better, _ = preferred_pairs(worth, answers.prompts.group, self.ranking)
        return torch.tensor(float(len(better)), device=better.device)

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        answers, worth = self._judged(experience)
        better, worse = preferred_pairs(worth, answers.prompts.group, self.ranking)
        rows, places = torch.cat([better, worse]).unique(return_inverse=True)
        # Every rank and micro-batch has a backward pass, also one without a pair.
        read = answers.select(rows if len(rows) else rows.new_zeros(1))
        logprobs = policy(read).logprobs
        implicit = self.beta * self._log_ratios(logprobs, read)
        chosen, rejected = implicit[places].chunk(2) if len(rows) else (implicit[:0], implicit[:0])
        losses = pair_losses((chosen - rejected) / self.beta, self.form, self.beta, self.label_smoothing)
        metrics = _watch(chosen.detach(), rejected.detach())
        if self.pairs == "drawn":
            metrics |= ratio_metrics(logprobs, read, read.action_mask)
        return Loss(losses.sum() + 0 * implicit.sum(), metrics)

    def _judged(self, experience: Experience) -> tuple[Rollout, Float[Tensor, " B"]]:
        """The answers and how much each is liked within its group; NaN where nobody could say."""
        if self.pairs == "stored":
            answers = human_answers("DPO", experience)
            return replace(answers, sampling=Sampling()), -ranks_of(answers.prompts).float()
        rollout, reward = experience.rollout, experience.reward
        assert rollout is not None
        assert reward is not None
        cut = reward.judged & ~rollout.terminated & (self.unfinished == "lose")
        return rollout, reward.total.masked_fill(cut, -torch.inf)

    def _log_ratios(self, logprobs: Float[Tensor, "N T"], read: Rollout) -> Float[Tensor, " N"]:
        if read.reference_logprobs is None:
            raise ValueError(
                "DPO: the answers carry no reference_logprobs. Expected a recipe with model.reference, which only "
                "training reads; add it."
            )
        apart = log_ratio_by_episode(logprobs, read.reference_logprobs, read.action_mask)
        return apart / read.action_mask.sum(1).clamp(min=1) if self.length_normalised else apart


def ranks_of(prompts: Prompts) -> Int[Tensor, " B"]:
    """The rank of every row's answer among those of its group, 0 the best; ValueError where nobody ranked them."""
    if "rank" not in prompts.features:
        raise ValueError(
            f"DPO: the prompts have the features {sorted(prompts.features)}, but no `rank` that says which answer is "
            "better. Expected a task of ranked answers, such as Preferences with answers: ranked; use one, or set "
            "pairs: drawn to compare episodes by their rewards."
        )
    return prompts.features["rank"]


def preferred_pairs(
    worth: Float[Tensor, " B"], group: Int[Tensor, " B"], ranking: Ranking
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
    """Rows of the better and of the worse answer of each pair within a group; ties and NaN make no pair.

    Args:
        worth: How much each answer is liked; NaN where nobody could say.
        group: Equal number = same prompt.
        ranking: `all` pairs that differ, the best ones with each worse one (`best_each`), or with the worst ones.
    """
    index, groups = group_index(group)
    wins = (index[:, None] == index) & (worth[:, None] > worth)
    if ranking != "all":
        known = worth.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        highest = known.new_full((groups,), -torch.inf).scatter_reduce(0, index, known, "amax")
        wins &= (worth == highest[index])[:, None]
    if ranking == "best_worst":
        known = worth.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        lowest = known.new_full((groups,), torch.inf).scatter_reduce(0, index, known, "amin")
        wins &= worth == lowest[index]
    better, worse = wins.nonzero(as_tuple=True)
    return better, worse


def pair_losses(
    margin: Float[Tensor, " M"], form: Form, beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " M"]:
    """The loss of each pair from h, the log-ratio of its better answer minus that of its worse one.

    Args:
        margin: h.
        form: `sigmoid` -(1 - e) log sigma(beta h) - e log sigma(-beta h); `robust` (-(1 - e) log sigma(beta h) + e log
            sigma(-beta h)) / (1 - 2 e); `ipo` (h - 1 / (2 beta))^2; `hinge` max(0, 1 - beta h).
        beta: Price of leaving the reference.
        label_smoothing: e, the share of pairs believed to be the wrong way round.
    """
    if form == "ipo":
        return (margin - 1 / (2 * beta)).square()
    if form == "hinge":
        return (1 - beta * margin).clamp(min=0)
    right, wrong = -logsigmoid(beta * margin), -logsigmoid(-beta * margin)
    if form == "robust":
        return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)
    return (1 - label_smoothing) * right + label_smoothing * wrong


def _watch(chosen: Float[Tensor, " M"], rejected: Float[Tensor, " M"]) -> dict[str, Tensor]:
    """Numbers for the log; 0 where there is no pair."""
    pairs = max(1, len(chosen))
    return {
        "dpo/accuracy": (chosen > rejected).float().sum() / pairs,
        "dpo/margin": (chosen - rejected).sum() / pairs,
        "dpo/chosen": chosen.sum() / pairs,
        "dpo/rejected": rejected.sum() / pairs,
    }


def _refuse_numbers(loss: str, beta: float, label_smoothing: float) -> None:
    if beta <= 0:
        raise ValueError(f"DPO: beta is {beta}; expected a number > 0. Correct the recipe.")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"DPO: label_smoothing is {label_smoothing}; expected a number in [0, 0.5). Correct it.")
    if label_smoothing > 0 and loss not in ("sigmoid", "robust"):
        raise ValueError(
            f"DPO: label_smoothing is {label_smoothing} with loss {loss}, which has no labels to smooth. Set it to 0, "
            "or loss to sigmoid or robust."
        )

"""How likely a language model finds an episode together with what stands around it."""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim import Adam

from lrl_core.frozen import Frozen
from lrl_core.interfaces import Learner, OptimizerFactory, Policy, Reward, Sampler, TaskFacts
from lrl_core.reference import Reference, load_policy
from lrl_core.sampling import Sampling
from lrl_core.types import Experience, Loss, RewardSignal, Rollout
from lrl_plugins.rewards.lm_posterior_columns import Columns
from lrl_plugins.rewards.lm_posterior_lines import Said, by_beginning, ended, of_right_label, spoken, whole
from lrl_plugins.rewards.lm_posterior_reading import Ask, after_each, within, without_dropout


class LMPosterior(Reward, Learner):
    """Log-likelihood of an episode and what follows it under a language model (Hu et al. 2024, arXiv 2310.04363).

    With prompt X, episode Z and, where a column `after` is named, a text Y that is to follow it, the reward is
    log p(Z, stop | X) or log p(Z Y | X): natural logarithms, at most 0, untempered. A policy that samples in
    proportion to it, as SubTB learns to, samples the model's posterior over Z given X and Y. By prefix it says what
    stopping after 0, 1, 2, ... tokens would be worth, all from one reading of the episode.

    The model is the recipe's reference policy, or one of its own. It reads the policy's token ids, an environment's
    words included, without dropout, and is renormalised over the tokens that the policy may draw; human answers are
    read under the bans of the episodes drawn last. Y is read as it is. A policy that reads branches
    (`Policy.branches`) reads Y after all prefixes in one line; others read one line per prefix.

    EM: with `learns`, after each update of the policy (E step) the model takes steps of maximum likelihood of Z and Y
    given X on the episodes that were drawn (M step), all judged ones with the same weight. A frozen model of its own
    is not written into checkpoints: have it made from a path or a `checkpoint`. Where a column is null, it cannot
    judge. Beside the reward it logs LMPosterior/per_token: the reward per token that it adds up.

    Args:
        before: Column of the examples with X, the text before the episode; None: the prompt's own tokens.
        after: Column with Y, the text after the episode, encoded by the task's tokenizer just as it stands (begin it
            with a space where a word should have one before it); None: the episode's end alone.
        ends: Whether the end token follows Y.
        labels: All texts that Y may be; a prefix after which another one is likelier than Y pays `wrong_label`.
        wrong_label: Added to the reward of such a prefix, at most 0.
        floor: Log-reward of a prefix that is too short to stop (the decoder's min_length) or that the model cannot
            say; finite, and well below all others.
        model: A language model of its own, such as CausalLM with a path; None: the recipe's reference policy.
        checkpoint: A checkpoint of a run whose policy weights `model` takes; None: it keeps those it begins with.
        learns: Whether `model` learns (the M step); False holds it still.
        optimizer: Optimiser of `model`.
        updates: Its updates per experience, >= 1.
        token_budget: Padded tokens that are read at once while scoring; None reads all lines in one pass.
    """

    def __init__(
        self,
        before: str | None = None,
        after: str | None = None,
        ends: bool = True,
        labels: list[str] | None = None,
        wrong_label: float = -50.0,
        floor: float = -99.0,
        model: Policy | None = None,
        checkpoint: str | None = None,
        learns: bool = False,
        optimizer: OptimizerFactory = Adam,
        updates: int = 1,
        token_budget: int | None = None,
    ) -> None:
        super().__init__()
        _check_numbers(wrong_label, floor, updates, token_budget)
        if labels is not None and (after is None or len(set(labels)) < 2):
            raise ValueError(
                f"LMPosterior: got labels {labels} and after {after!r}; expected at least two different labels, and "
                "the column that names the right one. Set after, or leave labels out."
            )
        if model is None and (learns or checkpoint is not None):
            raise ValueError(
                f"LMPosterior: got learns {learns} and checkpoint {checkpoint!r} without model; expected a language "
                "model of its own, because the reference policy holds still. Name one, such as CausalLM."
            )
        self.before, self.after, self.ends, self.labels = before, after, ends, labels
        self.wrong_label, self.floor = wrong_label, floor
        self.model, self.checkpoint, self.learns = model, checkpoint, learns
        self.optimizer, self.updates, self.token_budget = optimizer, updates, token_budget
        self.frozen: Frozen | None = None
        self._beside: tuple[Policy, Reference] | None = None  # in a tuple: they are registered where they belong
        self._columns: Columns | None = None
        self._banned: tuple[int, ...] = ()
        self._shortest = 0

    def bind(self, facts: TaskFacts) -> None:
        """Look for the columns, and hold a model that does not learn still."""
        tokenizer = facts.tokenizer
        if tokenizer.eos < 0 or tokenizer.backspace is not None:
            raise ValueError(
                f"LMPosterior: got a {type(tokenizer).__name__} with end token {tokenizer.eos} and backspace "
                f"{tokenizer.backspace}; expected an end token and no backspace, because it says what stopping after "
                "each token is worth. Use another tokenizer."
            )
        self._eos = tokenizer.eos
        self._columns = Columns(tokenizer, self.before, self.after, self.ends, self.labels)
        self._columns.check(facts.example)
        if self.model is not None and self.checkpoint is not None:
            load_policy(self.model, self.checkpoint, "LMPosterior.checkpoint")
        if self.model is not None and not self.learns:
            self.frozen, self.model = Frozen(self.model), None

    def check(self, sampler: Sampler) -> None:
        """Take the reference policy where there is no model of its own; refuse a recipe without either."""
        if self.model is not None or self.frozen is not None:
            return
        if not isinstance(sampler.reference, Reference):
            raise ValueError(
                "LMPosterior: got neither a model nor a recipe with a reference policy; expected one of them, to say "
                "how likely an episode is. Set model.reference: {}, or name a model of its own."
            )
        self._beside = (sampler.policy, sampler.reference)

    # The reward

    @torch.no_grad()
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode and every prefix of it; NaN where a column is null."""
        columns = self._around()
        said = self._said(rollout, columns)
        bans, wide = self._bans(rollout), rollout.tokens.shape[1] + 1
        if len(rollout):
            branches = self._language_model().branches
            words, tails = after_each(said, within(self._reads, self.token_budget), branches, self._eos, bans)
            ends = of_right_label(tails, columns.right(rollout.prompts), self.wrong_label)
            worth = by_beginning(words, ends, said.lengths, wide, self._shortest, self.floor)
        else:
            worth = torch.zeros(0, wide, device=rollout.tokens.device)
        total = torch.where(columns.known(rollout.prompts), worth[:, -1], torch.nan)
        per_token = total / columns.tokens_read(said.lengths, rollout.prompts)
        return RewardSignal(total, by_prefix=worth, parts={"LMPosterior": total, "LMPosterior/per_token": per_token})

    def _around(self) -> Columns:
        if self._columns is None:
            raise RuntimeError(
                "LMPosterior: got episodes before it knows the task; expected bind_all(reward, facts) first. The "
                "trainer binds every component; in a script, call it yourself."
            )
        return self._columns

    def _said(self, rollout: Rollout, columns: Columns) -> Said:
        return Said.of(rollout, columns.prompts(rollout.prompts), columns.tails(rollout.prompts), self._eos)

    def _bans(self, rollout: Rollout) -> Sampling:
        """What the model is renormalised over; human answers take what was drawn last."""
        if rollout.sampling is not None:
            self._banned, self._shortest = rollout.sampling.banned, rollout.sampling.min_length
        return Sampling(banned=self._banned, eos=self._eos)

    def _language_model(self) -> Policy:
        """Who reads: a model of its own, else the policy with the reference's weights."""
        if self.model is not None:
            return self.model
        if self.frozen is not None:
            held = self.frozen.module
            assert isinstance(held, Policy)
            return held
        if self._beside is None:
            raise RuntimeError(
                "LMPosterior: got episodes without a language model; expected check(sampler) of a recipe with a "
                "reference policy first. Outside a recipe, give it a model of its own."
            )
        return self._beside[0]

    def _reads(self, rollout: Rollout, ask: Ask) -> tuple[Tensor, ...]:
        reader = self._language_model()
        with without_dropout(reader):
            if self._beside is None:
                return ask(reader(rollout))
            return self._beside[1].lines(reader, rollout, ask)

    def get_extra_state(self) -> dict[str, Any]:
        """What episodes could not be, for human answers that a resumed run scores before it draws any."""
        return {"banned": list(self._banned), "shortest": self._shortest}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take it from a checkpoint."""
        self._banned, self._shortest = tuple(state["banned"]), state["shortest"]

    # The learner

    def count(self, lesson: Experience) -> Float[Tensor, ""]:
        """How many episodes could be judged."""
        return self._taught(lesson).sum().float()

    def learn(self, lesson: Experience) -> Loss:
        """Minus log p(Z, stop | X) or log p(Z Y | X), summed over the judged episodes; with the model's dropout."""
        assert lesson.rollout is not None and self.model is not None
        taught, bans = self._taught(lesson), self._bans(lesson.rollout)
        before = self.model.training
        self.model.train()
        each = self._likelihood(self.model, lesson.rollout, bans)
        self.model.train(before)
        each = torch.where(taught, each, 0)
        metrics = {}
        if bool(taught.any()):
            metrics["lm_posterior/log_likelihood"] = each.detach().sum() / taught.sum()
        return Loss(-each.sum(), metrics)

    def _taught(self, lesson: Experience) -> Bool[Tensor, " B"]:
        assert lesson.rollout is not None
        known = self._around().known(lesson.rollout.prompts)
        return known if lesson.reward is None else known & lesson.reward.judged

    def _likelihood(self, model: Policy, rollout: Rollout, bans: Sampling) -> Float[Tensor, " B"]:
        """One line per episode; with labels the right one stands after it."""
        columns = self._around()
        said = self._said(rollout, columns)
        if said.kinds == 0:
            return model(ended(said, self._eos, bans)).logprobs.sum(1)
        right = columns.right(rollout.prompts).tolist()
        tails = tuple((own[place],) for own, place in zip(said.tails, right, strict=True))
        return spoken(model(whole(replace(said, tails=tails)).rollout), bans)[0].sum(1)


def _check_numbers(wrong_label: float, floor: float, updates: int, token_budget: int | None) -> None:
    expected = {
        "wrong_label": ("a finite number <= 0", wrong_label, -math.inf < wrong_label <= 0),
        "floor": ("a finite number", floor, math.isfinite(floor)),
        "updates": ("a number >= 1", updates, updates >= 1),
        "token_budget": ("a number >= 1, or null", token_budget, token_budget is None or token_budget >= 1),
    }
    for name, (wanted, got, holds) in expected.items():
        if not holds:
            raise ValueError(f"LMPosterior: {name} is {got}; expected {wanted}. Correct the recipe.")

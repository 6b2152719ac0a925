"""Asking people, or something that stands in for them, which answers of the policy are better, while it trains."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lrl_core.interfaces import ChecksRecipe, Reward, Sampler, bind_all
from lrl_core.module import PolicyGradient
from lrl_core.preferences.reading import FILE, ReadsLabels
from lrl_core.preferences.store import PreferenceStore
from lrl_core.scoring import judge
from lrl_core.types import Rollout
from lrl_plugins.callbacks.candidates import Candidates, picture_of, questions_of
from lrl_plugins.callbacks.carried_labels import packed, unpack
from lrl_plugins.callbacks.labelling import ANSWERS, Answer, due, ranks_of
from lrl_plugins.callbacks.loggers import log_now

POLL = 2.0
"""Seconds between two looks at whether people have answered."""


class AskForLabels(Callback, ChecksRecipe):
    """Writes questions about the policy's answers into a store of preferences, for people or a scripted labeller.

    A question is a prompt with several different answers that the policy gave in the step. People answer with
    `lrl label --run RUN_FOLDER`; the reward Preference learns from their answers meanwhile. With a `labeller`, any
    reward, nobody is needed: its scores become judgments at once.

    When they are asked is the schedule of Ziegler et al. 2019 (arXiv 1909.08593, section 2.3): `before` while the
    policy still is the reference policy (`model.learners_first`), the rest while it learns, at a rate that falls
    linearly to 0. With `before` as large as `total` all labels are of the reference policy: the offline variant.
    A Preference with `labels: run` learns from this store. With several ranks the first one asks, about its own
    episodes. Labels travel in the checkpoint: a resumed run that begins with an empty store first fills it.

    Logged after every epoch: `labels/questions` (asked in this run) and `labels/judged` (judgments in the store that
    count).

    Args:
        store: SQLAlchemy URL or path of a SQLite file; None: `labels.db` in the run's folder.
        total: Most questions in the run.
        before: How many of them are asked while the policy holds still.
        spread: Training steps of the reinforcement phase over which the others are asked.
        questions: Most questions of one step.
        every: Training steps between two times of asking.
        candidates: Answers per question; the decoder must draw at least as many per prompt. Equal ones are one.
        labeller: Any reward that answers in place of people; None: people do.
        answer: Whether the labeller names only the `best` candidate or gives a `ranking` of all.
        tie: Candidates whose scores are no further apart than this are as good to the labeller, >= 0.
        temperature: The labeller's noise: above 0 it chooses with probabilities softmax(scores / temperature).
        wait: Most seconds that the run waits for people, once the questions of `before` are asked, until as many
            judgments are there; 0 never waits.
    """

    def __init__(
        self,
        store: str | None = None,
        total: int = 1000,
        before: int = 0,
        spread: int = 1000,
        questions: int = 4,
        every: int = 1,
        candidates: int = 4,
        labeller: Reward | None = None,
        answer: Answer = "best",
        tie: float = 0.0,
        temperature: float = 0.0,
        wait: float = 0.0,
    ) -> None:
        if not 0 <= before <= total or min(total, spread, questions, every) < 1 or candidates < 2:
            raise ValueError(
                f"AskForLabels: got total {total}, before {before}, spread {spread}, questions {questions}, every "
                f"{every} and candidates {candidates}; expected 0 <= before <= total, candidates >= 2 and the others "
                ">= 1. Correct them in the recipe."
            )
        if min(tie, temperature, wait) < 0 or answer not in ANSWERS:
            raise ValueError(
                f"AskForLabels: got tie {tie}, temperature {temperature}, wait {wait} and answer {answer!r}; expected "
                f"numbers >= 0 and one of {', '.join(ANSWERS)}. Correct them in the recipe."
            )
        self.address, self.total, self.before, self.spread = store, total, before, spread
        self.questions, self.every, self.candidates = questions, every, candidates
        self.labeller, self.answer, self.tie, self.temperature, self.wait = labeller, answer, tie, temperature, wait
        self.url = store or ""
        self.store: PreferenceStore | None = None  # open on the first rank, while a run trains
        self.asked = self.moved = 0
        self.waited = 0.0
        self.labels: dict[str, Any] | None = None  # of a run that is over, or of the checkpoint

    def check_recipe(self, sampler: Sampler) -> None:
        """Refuse a recipe whose decoder draws too few answers, or whose policy never holds still."""
        assert isinstance(sampler, PolicyGradient)
        samples = sampler.decoder.samples if sampler.decoder else 0
        if samples < self.candidates:
            raise ValueError(
                f"AskForLabels: candidates is {self.candidates}, but the decoder draws {samples} answers per prompt; "
                f"expected at least as many. Set model.decoder.init_args.samples to {self.candidates} or more, or "
                "lower candidates."
            )
        if self.before and sampler.first_epoch == sampler.warm_up_epochs:
            raise ValueError(
                f"AskForLabels: before is {self.before}, but the policy moves from the first step; expected epochs in "
                "which it holds still. Set model.learners_first, or before to 0."
            )

    # Beginning and end

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the store, on every rank: the ranks agree on the run's folder together."""
        if stage == "fit":
            self.url = self.address or str(Path(trainer.log_dir or trainer.default_root_dir) / FILE)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the store, fill it if the run was resumed, tell who learns from it, and get the labeller ready."""
        assert isinstance(pl_module, PolicyGradient)
        self.check_recipe(pl_module)
        for part in pl_module.modules():
            if isinstance(part, ReadsLabels):
                part.look_in(self.url)
        if not trainer.is_global_zero:
            return
        if "://" not in self.url:
            Path(self.url).expanduser().parent.mkdir(parents=True, exist_ok=True)
        self.store = PreferenceStore(self.url)
        if self.labels is not None and unpack(self.labels, self.store):
            rank_zero_info(f"AskForLabels: the labels of the checkpoint are now in {self.url}.")
        if self.labeller is not None:
            bind_all(self.labeller, trainer.datamodule.facts())  # type: ignore[attr-defined]
            self.labeller.to(pl_module.device).eval()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the store."""
        if self.store is not None:
            self.labels = packed(self.store)
            self.store.close()
            self.store = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must still know: how far the schedule is, and the labels."""
        labels = self.labels if self.store is None else packed(self.store)
        return {"asked": self.asked, "moved": self.moved, "waited": self.waited, "labels": labels}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run stopped."""
        self.asked, self.moved = state_dict["asked"], state_dict["moved"]
        self.waited, self.labels = state_dict["waited"], state_dict["labels"]

    # While the run trains

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask what is due about the step's episodes, and wait for people where that is wanted."""
        assert isinstance(pl_module, PolicyGradient)
        experience = pl_module.last_experience
        if experience is None or experience.rollout is None:
            return  # maximum likelihood: nothing was drawn
        wanted = self._wanted(pl_module)
        if wanted > 0:
            self._ask(trainer, pl_module, experience.rollout, wanted)
        if pl_module.holding and self.asked >= self.before and self.waited < self.wait:
            self._wait_for_people(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how many questions were asked, and how many judgments there are by now."""
        judged = trainer.strategy.broadcast(self._judged())
        log_now(trainer, pl_module, {"labels/questions": float(self.asked), "labels/judged": float(judged)})

    def _judged(self) -> int:
        """Judgments that count; 0 on ranks that have no store."""
        return 0 if self.store is None else len(self.store.comparisons())

    def _wanted(self, module: PolicyGradient) -> int:
        """How many questions to ask now; the same on every rank."""
        if module.holding:
            goal = self.before
        else:
            if not self.moved and self.asked < self.before:
                rank_zero_warn(
                    f"AskForLabels: {self.asked} questions were asked while the policy held still; before is "
                    f"{self.before}. The others are asked while it learns. Raise model.learners_first or questions."
                )
            self.moved += 1
            goal = due(self.before, self.total, min(1.0, self.moved / self.spread))
        return 0 if module.step % self.every else min(self.questions, goal - self.asked)

    def _ask(self, trainer: Trainer, module: PolicyGradient, rollout: Rollout, count: int) -> None:
        if self.store is not None:
            questions = questions_of(rollout, module.tokenizer, count, self.candidates)
            keys = [question.key(module.seed, module.step) for question in questions]
            ids = [self._write(rollout, *pair, module.step) for pair in zip(questions, keys, strict=True)]
            if self.labeller is not None and questions:
                self._judge(self.labeller, rollout, questions, ids, keys)
            self.asked += len(questions)
        # The other ranks wait here, so that none reads the store before its new labels are in it.
        self.asked = trainer.strategy.broadcast(self.asked)

    def _write(self, rollout: Rollout, question: Candidates, key: str, step: int) -> int:
        assert self.store is not None
        picture = picture_of(rollout.prompts, question.rows[0])
        return self.store.ask(question.prompt, question.texts, picture=picture, step=step, key=key)

    @torch.no_grad()
    def _judge(
        self, labeller: Reward, rollout: Rollout, questions: list[Candidates], ids: list[int], keys: list[str]
    ) -> None:
        """Let the labeller answer; its draws are a function of the question, so that a repeated step draws alike."""
        assert self.store is not None
        rows = [row for question in questions for row in question.rows]
        shown = rollout.select(torch.tensor(rows, device=rollout.tokens.device))
        scores = judge(labeller, shown).total.tolist()
        for question, number, key in zip(questions, ids, keys, strict=True):
            own, scores = scores[: len(question.rows)], scores[len(question.rows) :]
            generator = torch.Generator().manual_seed(int(key[-12:], 16))
            ranks = ranks_of(own, self.answer, self.tie, self.temperature, generator)
            self.store.judge(number, ranks, who=f"script:{type(labeller).__name__}", key=key)

    def _wait_for_people(self, trainer: Trainer) -> None:
        """Hold the run until people have judged enough, or have had their time."""
        said = False
        while True:
            judged = self._judged()
            if trainer.strategy.broadcast(judged >= self.before or self.waited >= self.wait):
                return
            if not said:
                rank_zero_info(
                    f"AskForLabels: {judged} of {self.before} judgments are there; waiting up to "
                    f"{self.wait - self.waited:.0f} s for more. Give them with `lrl label`; they go into {self.url}."
                )
            said = True
            time.sleep(POLL)
            self.waited += POLL

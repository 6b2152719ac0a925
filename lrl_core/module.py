"""PolicyGradient, the LightningModule: roll out, score, compare, update."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrl_core.clock import Clock
from lrl_core.gradients import Updater
from lrl_core.interfaces import (
    Baseline,
    Component,
    Decoder,
    Learner,
    Lesson,
    Objective,
    OptimizerFactory,
    Policy,
    Replay,
    Reward,
    Sampler,
    TaskFacts,
    bind_all,
    components,
)
from lrl_core.phases import Phase, SchedulerFactory, WarmUp, factories, of_policy, refuse_unsuited, trained
from lrl_core.reference import Reference, load_policy, policy_and_known
from lrl_core.reports import Answer, Examination, experience_metrics, pace, texts_of
from lrl_core.scoring import begun, compare
from lrl_core.seeds import Seeded, seed_step
from lrl_core.step_log import StepLog, of_learner
from lrl_core.types import Experience, Loss, PolicyOutput, Prompts, RewardSignal, Rollout


class PolicyGradient(Seeded, Sampler):
    """One training step for every method: a decoder draws, a reward scores, a baseline compares, an objective teaches.

    Args:
        policy: Who speaks.
        objective: Turns experience into a loss.
        replay: Asks for experience when it wants some.
        task: What the task knows; the command line links it to the data.
        decoder: Draws the episodes to learn from; None where nothing is sampled.
        reward: Says what a good episode is; None where nothing is sampled.
        baseline: Says compared with what; None where nothing is sampled.
        optimizer: Optimiser of the policy.
        scheduler: Learning-rate schedule of that optimiser, stepped once per training step; None keeps the rate.
        warm_up: Maximum likelihood first, inside the same run; None starts with `objective` at once.
        evaluation_decoder: Plays validation, test and predict; None: the training decoder's limits, played greedily.
        token_budget: Padded tokens per micro-batch, prompt included; None reads the whole batch at once. It changes
            memory and speed, never the update.
        gradient_clip: Limit on the gradient; None for no limit.
        gradient_clip_algorithm: `norm` limits the norm of all gradients, `value` each entry.
        start_from: A checkpoint of an earlier run whose policy weights to start from (nothing else is taken over).
        reference: The policy that the trained one is kept near by a KL term (reward KLPenalty, PPO's kl_weight);
            None where no part asks for it.
        learners_first: Epochs after the warm-up in which the policy holds still while what learns beside it (a critic,
            a discriminator, a preference model) learns from its episodes.
    """

    steps_done: Tensor
    reference: Reference | None

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        replay: Replay,
        task: TaskFacts,
        decoder: Decoder | None = None,
        reward: Reward | None = None,
        baseline: Baseline | None = None,
        optimizer: OptimizerFactory = Adam,
        scheduler: SchedulerFactory | None = None,
        warm_up: WarmUp | None = None,
        evaluation_decoder: Decoder | None = None,
        token_budget: int | None = None,
        gradient_clip: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        start_from: str | None = None,
        reference: Reference | None = None,
        learners_first: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy, self.reward, self.baseline, self.reference = policy, reward, baseline, reference
        self.on_policy = reference is None or not reference.draws
        self.decoder = decoder  # type: ignore[assignment]  # None only where no part asks a sampler for it
        self.evaluation_decoder = evaluation_decoder
        self.environment = task.environment
        self.tokenizer = task.tokenizer
        self.updater = Updater(token_budget, gradient_clip, gradient_clip_algorithm)
        self.warm_up_epochs = warm_up.epochs if warm_up else 0
        self.first_epoch = self.warm_up_epochs + learners_first  # of the policy's reinforcement
        self.objectives = nn.ModuleList([objective] + ([warm_up.objective] if warm_up else []))
        self.replays = nn.ModuleList([replay] + ([warm_up.replay] if warm_up else []))
        self.factories = factories(optimizer, scheduler, warm_up)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))
        self.step = 0  # training steps before the current one
        self.last_experience: Experience | None = None  # what the step drew; human answers where it drew nothing
        self.collected: list[Experience] = []  # what the current step has drawn so far
        self.examination: Examination | None = None
        self.answered: Rollout | None = None  # what the policy said to the held-out prompts that came last
        self.clock, self.step_log = Clock(), StepLog()
        self.played: list[Tensor] = []  # tokens chosen in each batch of episodes of the current step, rivals included
        self.scheduled = -1  # the epoch that every part has been told of
        bind_all(self, task)
        self.parts: list[Component] = components(self)
        self.learners = self._find_learners()
        self.answering = self._answering_decoder()
        if reference is not None:
            reference.hold(policy, warmed_up=self.warm_up_epochs > 0)
        self._check_recipe(learners_first)
        if start_from is not None:
            load_policy(policy, start_from, "start_from")

    # What happens before the first step

    def _check_recipe(self, learners_first: int) -> None:
        if learners_first and not self.learners:
            raise ValueError(
                f"learners_first is {learners_first}, but no reward and no baseline of the recipe learns. Expected one "
                "that does, such as Discriminator or Critic; name it, or set learners_first to 0."
            )
        parts = {"decoder": self.decoder, "reward": self.reward, "baseline": self.baseline}
        for objective, replay in zip(self.objectives, self.replays, strict=True):
            refuse_unsuited(objective, replay, missing={name for name, part in parts.items() if part is None})
        for part in self.parts:
            part.check(self)

    def _answering_decoder(self) -> Decoder:
        if self.evaluation_decoder is not None:
            return self.evaluation_decoder
        if self.decoder is None:
            raise ValueError("The recipe names neither decoder nor evaluation_decoder; validation needs one of them.")
        return self.decoder.greedy()

    @property
    def objective(self) -> Objective:  # type: ignore[override]
        """What reinforcement learning minimises."""
        objective = self.objectives[0]
        assert isinstance(objective, Objective)
        return objective

    @property
    def drawn(self) -> tuple[int, int]:
        """Episodes and chosen tokens that this rank drew to learn from in the current step."""
        rollouts = [experience.rollout for experience in self.collected if experience.rollout is not None]
        return sum(map(len, rollouts)), sum(int(rollout.action_mask.sum()) for rollout in rollouts)

    def _find_learners(self) -> list[Learner]:
        """Everything that learns beside the policy, wherever it is nested."""
        return [part for part in self.modules() if isinstance(part, Learner) and trained(part)]

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """One optimiser per phase for the policy, then one per learner."""
        self.learners = self._find_learners()  # again: something may have been frozen meanwhile
        optimizers, schedulers, self._schedulers_of = of_policy(self.policy, self.factories)
        return optimizers + [learner.optimizer(trained(learner)) for learner in self.learners], schedulers

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the seed of the run; to answer prompts, take the policy whole and what else there is a place for.

        The recipe that measures a policy may name another reward or baseline than the one that trained it.
        """
        super().on_load_checkpoint(checkpoint)
        if self.trainer.state.fn != TrainerFn.FITTING:
            checkpoint["state_dict"] = policy_and_known(checkpoint["state_dict"], self.state_dict())

    # The step

    @property
    def phase(self) -> Phase:
        """What this epoch learns, from what, and with which optimiser."""
        which = 1 if self.current_epoch < self.warm_up_epochs else 0
        objective, replay = self.objectives[which], self.replays[which]
        assert isinstance(objective, Objective)
        assert isinstance(replay, Replay)
        holds = self.warm_up_epochs <= self.current_epoch < self.first_epoch
        return Phase(objective, replay, min(which, len(self.factories) - 1), holds)

    def training_step(self, prompts: Prompts, batch_idx: int) -> None:
        """Ask the replay for experience and learn from it: policy first, then every learner."""
        self.clock.restart()
        with self.clock.phase("step"):
            metrics = self._learn(prompts)
        self._report(metrics)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the step, after the callbacks: one of them may have made it the last."""
        self.step_log.hand_over(self.trainer, self.step)

    def _learn(self, prompts: Prompts) -> dict[str, Tensor]:
        """The step itself; numbers for the log."""
        assert self.seed is not None
        # Every random draw of a step is a function of seed, rank and step: a resumed run needs no saved generators.
        self.step = int(self.steps_done)
        seed_step(self.seed, self.global_rank, self.step)
        self._follow_schedules()
        phase = self.phase
        self.holding = phase.holds
        optimizers = self._every_optimizer()
        policy_optimizer, learner_optimizers = optimizers[phase.optimizer], optimizers[len(self.factories) :]
        self.collected, self.played = [], []
        metrics: dict[str, Tensor] = {}
        taught = 0
        for experience in phase.replay.batches(_Collect(self, prompts), partial(self._human_answers, prompts)):
            if not phase.holds:
                teach = partial(phase.objective.loss, self.read)
                new = self.update(teach, phase.objective.count, experience, policy_optimizer)
                metrics |= new | {name: metrics[name] for name in new if "ratio/first" in name and name in metrics}
            taught += 1
            for learner, optimizer in zip(self.learners, learner_optimizers, strict=True):
                for lesson in learner.lessons(experience, self):
                    metrics |= of_learner(learner, self.update(learner.learn, learner.count, lesson, optimizer))
        if not phase.holds:
            self._step_scheduler(phase.optimizer)
        # Controllers and logs see every episode once: epochs and minibatches show it several times, or in parts.
        drawn = Experience.cat(self.collected) if self.collected else experience
        self.last_experience = experience if taught == 1 else drawn
        for part in self.parts:
            part.learned(drawn)
        if self.reference is not None and phase.replay.samples:
            self.reference.follow(self.policy)
        self.steps_done += 1
        return metrics

    def _follow_schedules(self) -> None:
        """Tell every part which epoch of its phase this is, once; a run resumed within an epoch does so too."""
        if self.scheduled == self.current_epoch:
            return
        self.scheduled = self.current_epoch
        if self.reference is not None and self.current_epoch >= self.warm_up_epochs:
            self.reference.begin(self.policy)
        begins = max(first for first in (0, self.warm_up_epochs, self.first_epoch) if first <= self.current_epoch)
        for part in self.parts:
            part.begin_epoch(self.current_epoch - begins)

    @torch.no_grad()
    def collect(self, prompts: Prompts) -> Experience:
        """Fresh episodes, scored and compared as far as the recipe says how, with the human answers beside them."""
        experience = replace(self._human_answers(prompts), rollout=self.draw(prompts.distinct()[0]))
        assert experience.rollout is not None
        if self.reward is not None:
            rollout, reward = self.scored(experience.rollout)
            experience = replace(experience, rollout=rollout, reward=reward)
            if self.baseline is not None:
                with self.clock.phase("baseline"):
                    experience = replace(experience, advantage=compare(self.baseline, rollout, reward, self))
        self.collected.append(experience)
        return experience

    def _human_answers(self, prompts: Prompts) -> Experience:
        """What people said, and how probable the reference policy finds it where the objective asks."""
        expert = Rollout.of_targets(prompts)
        if expert is not None and self.phase.objective.compares_answers and self.reference is not None:
            with self.clock.phase("reference"):
                logprobs = self.reference.logprobs(self.policy, expert)
            expert = replace(expert, reference_logprobs=logprobs)
        return Experience(expert=expert)

    # What parts may ask for

    @property
    def delayed(self) -> Policy | None:
        """The reference policy's own copy of the weights."""
        return None if self.reference is None else self.reference.copy

    def roll_out(self, prompts: Prompts, decoder: Decoder | None = None) -> tuple[Rollout, RewardSignal]:
        """Play and score episodes, without gradients and without dropout; None means the training decoder."""
        return self.scored(self.draw(prompts, decoder))

    @torch.no_grad()
    def draw(self, prompts: Prompts, decoder: Decoder | None = None) -> Rollout:
        """Play episodes with texts; None means the training decoder, and whoever plays what is learnt from."""
        trained_on = decoder is None
        decoder = decoder or self.decoder
        with self.clock.phase("rollout"):
            rollout = self._play(prompts, decoder, self.delayed if trained_on and not self.on_policy else None)
            self.played.append(rollout.action_mask.sum())
        return rollout

    @torch.no_grad()
    def complete(
        self, prompts: Prompts, openings: Sequence[Sequence[int]], policy: Policy | None = None
    ) -> tuple[Rollout, RewardSignal]:
        """Play on from given tokens with the training decoder, and score."""
        with self.clock.phase("rollout"):
            rollout = self.decoder.complete((policy or self.policy).eval(), prompts, openings)
            self.played.append(rollout.action_mask.sum())
        return self.scored(self._with_texts(rollout))

    def scored(self, rollout: Rollout) -> tuple[Rollout, RewardSignal]:
        """Episodes with texts as the reference policy finds them, and what the reward says of them."""
        assert self.reward is not None
        with begun(self.reward, rollout, beside=self.reference is not None) as judged:
            if self.reference is not None:
                with self.clock.phase("reference"):
                    rollout = replace(rollout, reference_logprobs=self.reference.logprobs(self.policy, rollout))
            with self.clock.phase("reward"):
                return rollout, judged(rollout)

    def update(
        self,
        loss_of: Callable[[Any], Loss],
        count_of: Callable[[Any], Tensor],
        lesson: Lesson,
        optimizer: LightningOptimizer,
    ) -> dict[str, Tensor]:
        """One optimiser step; neither micro-batches nor ranks change it. Returns numbers for the log."""
        with self.clock.phase("loss"):
            return self.updater.step(self, loss_of, count_of, lesson, optimizer, self.step)

    def read(self, rollout: Rollout) -> PolicyOutput:
        """What the policy says of a rollout. Dropout is on only while it learns human answers: the one mode rule.

        Episodes are played without dropout, so their loss is computed without it too.
        """
        self.policy.train(self.training and rollout.sampling is None)
        return self.policy(rollout)

    def _play(self, prompts: Prompts, decoder: Decoder, policy: Policy | None = None) -> Rollout:
        rollout = decoder.decode((policy or self.policy).eval(), prompts, self.environment)
        return self._with_texts(rollout)

    def _with_texts(self, rollout: Rollout) -> Rollout:
        return replace(rollout, texts=texts_of(rollout, self.tokenizer, self.environment))

    def _every_optimizer(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _step_scheduler(self, optimizer: int) -> None:
        if optimizer in self._schedulers_of:
            which, schedulers = self._schedulers_of[optimizer], self.lr_schedulers()
            scheduler = schedulers[which] if isinstance(schedulers, list) else schedulers
            assert isinstance(scheduler, LRScheduler)
            scheduler.step()

    def _report(self, metrics: dict[str, Tensor]) -> None:
        assert self.last_experience is not None
        numbers = {f"train/{name}": value for name, value in metrics.items()}
        numbers |= experience_metrics(self.last_experience) | pace(self.clock, self.collected, self.played, self.device)
        bar = {"loss": "train/loss", "reward": "reward/mean"}
        self.step_log.tell(
            self.trainer, numbers, {short: numbers[name] for short, name in bar.items() if name in numbers}
        )

    # Validation, test, predict

    def on_validation_epoch_start(self) -> None:
        """Begin with an empty metric."""
        self._begin_stage("validate")

    def validation_step(self, prompts: Prompts, batch_idx: int) -> None:
        """Answer the held-out prompts."""
        self._examine(prompts)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics as val/<name>."""
        self._end_stage("val")

    def on_test_epoch_start(self) -> None:
        """Begin with an empty metric."""
        self._begin_stage("test")

    def test_step(self, prompts: Prompts, batch_idx: int) -> None:
        """Answer the test prompts."""
        self._examine(prompts)

    def on_test_epoch_end(self) -> None:
        """Log the metrics as test/<name>."""
        self._end_stage("test")

    @torch.no_grad()
    def predict_step(self, prompts: Prompts, batch_idx: int) -> list[dict[str, Any]]:
        """Answer prompts; the answers as rows of id, text and references, and the turns of conversations."""
        rollout = self._play(prompts.distinct()[0], self.answering)
        return [answer.row() for answer in Answer.of(rollout, self.tokenizer)]

    def _begin_stage(self, stage: str) -> None:
        metric = self.trainer.datamodule.metrics(stage)  # type: ignore[attr-defined]
        self.examination = Examination(metric.to(self.device), self.device)

    @property
    def answers(self) -> list[Answer]:
        """The answers of the last validation or test so far."""
        return self.examination.answers if self.examination else []

    @torch.no_grad()
    def _examine(self, prompts: Prompts) -> None:
        assert self.examination is not None
        prompts = prompts.distinct()[0]  # ranked answers: a prompt is answered once, the best answer comes first
        self.answered = self._play(prompts, self.answering)
        self.examination.answers += Answer.of(self.answered, self.tokenizer)
        for part in Experience(expert=Rollout.of_targets(prompts)).split(self.updater.token_budget):
            if part.expert is not None:
                self.examination.weigh(part.expert, self.read(part.expert).logprobs)

    def _end_stage(self, prefix: str) -> None:
        assert self.examination is not None
        self.log_dict({f"{prefix}/{name}": value for name, value in self.examination.scores().items()})


@dataclass(frozen=True)
class _Collect:
    """What a replay asks for fresh episodes."""

    module: PolicyGradient
    prompts: Prompts

    def __call__(self, groups: Collection[int] | None = None) -> Experience:
        if groups is None:
            return self.module.collect(self.prompts)
        rows = [row for row, group in enumerate(self.prompts.group.tolist()) if group in groups]
        return self.module.collect(self.prompts.select(torch.tensor(rows, device=self.prompts.group.device)))

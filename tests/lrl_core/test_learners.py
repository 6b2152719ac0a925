"""What learns beside the policy, or without one: lessons, epochs in which the policy holds still, delayed actors."""

import copy

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torchmetrics import MeanMetric, Metric

from lrl_core.alone import LearnerAlone
from lrl_core.interfaces import Learner, LearnsAlone, Objective, Reward
from lrl_core.module import PolicyGradient
from lrl_core.phases import WarmUp
from lrl_core.reference import Reference
from lrl_core.testing.toy import TableReward
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import Experience, Loss, RewardSignal
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.ppo import PPO
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh


class Guess(Reward, Learner):
    """Learns one number: the mean length of what it is shown; draws some of it itself."""

    def __init__(self, more=0, updates=1):
        super().__init__()
        self.guess, self.more, self.updates = nn.Parameter(torch.zeros(())), more, updates
        self.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
        self.seen, self.steps = [], []

    def score(self, rollout):
        return RewardSignal(rollout.lengths.float())

    def lessons(self, experience, sampler):
        yield from super().lessons(experience, sampler)
        self.steps.append((sampler.step, sampler.holding))
        for _ in range(self.more):
            yield Experience(*self._drawn(experience, sampler))

    def _drawn(self, experience, sampler):
        rollout = sampler.draw(experience.rollout.prompts.distinct()[0])
        rows = torch.arange(len(rollout))
        return rollout, self.score(rollout), experience.advantage.select(rows)

    def count(self, lesson):
        return torch.tensor(float(len(lesson.rollout)))

    def learn(self, lesson):
        self.seen.append(lesson.rollout)
        return Loss(((self.guess - lesson.rollout.lengths.float()) ** 2).sum())


def build(task, **options):
    torch.manual_seed(1)
    settings = {
        "policy": Recurrent(cell="gru", embedding=6, hidden=8),
        "objective": Reinforce(),
        "replay": Fresh(),
        "decoder": Sample(max_length=4, samples=3),
        "reward": TableReward(lambda tokens: float(tokens.count(0))),
        "baseline": LeaveOneOut(),
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.5),
    }
    return PolicyGradient(task=task.facts(), **settings | options)


def fit(folder, module, epochs=1, steps=2, callbacks=(), ckpt=None, validate=False):
    torch.manual_seed(7)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=steps,
        limit_val_batches=1 if validate else 0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, ToyTask(), ckpt_path=ckpt, **({"weights_only": False} if ckpt else {}))
    return module


def weights(part):
    return torch.cat([p.detach().flatten() for p in part.parameters()])


@pytest.mark.parametrize(("more", "updates", "expected"), [(0, 1, 2), (0, 3, 6), (2, 1, 6)])
def test_a_learner_says_what_it_learns_from_and_may_draw_more(tmp_path, more, updates, expected):
    module = fit(tmp_path, build(ToyTask(), reward=Guess(more, updates)))
    assert len(module.reward.seen) == expected
    assert all(rollout.texts is not None for rollout in module.reward.seen)
    assert [step for step, _ in module.reward.steps] == [0, 1]
    distinct = {tuple(rollout.tokens.flatten().tolist()) for rollout in module.reward.seen}
    assert len(distinct) == 2 * (1 + more)


def test_the_policy_holds_still_while_learners_catch_up(tmp_path):
    warm_up = WarmUp(1, CrossEntropy(), Expert())
    taught = fit(tmp_path / "a", build(ToyTask(), reward=Guess(), warm_up=copy.deepcopy(warm_up)), epochs=1)
    held = fit(tmp_path / "b", build(ToyTask(), reward=Guess(), warm_up=warm_up, learners_first=2), epochs=3)
    assert weights(held.policy).equal(weights(taught.policy))
    assert [holding for _, holding in held.reward.steps] == [False] * 2 + [True] * 4  # the warm-up draws nothing
    assert float(held.reward.guess) > 0
    assert float(taught.reward.guess) == 0
    after = fit(tmp_path / "c", build(ToyTask(), reward=Guess(), learners_first=1), epochs=2)
    before = fit(tmp_path / "d", build(ToyTask(), reward=Guess(), learners_first=1), epochs=1)
    assert weights(before.policy).equal(weights(build(ToyTask(), reward=Guess()).policy))
    assert not weights(after.policy).equal(weights(before.policy))


def test_a_run_resumes_within_the_epochs_of_the_learners(tmp_path):
    def module():
        delayed = Reference(decay=0.5, draws=True)
        return build(ToyTask(), objective=PPO(), reward=Guess(more=1), reference=delayed, learners_first=2)

    saved = ModelCheckpoint(dirpath=tmp_path / "whole", save_top_k=-1, filename="{epoch}", every_n_epochs=1)
    whole = fit(tmp_path, module(), epochs=4, callbacks=[saved])
    for epoch in (0, 2):
        again = fit(tmp_path / f"{epoch}", module(), epochs=4, ckpt=tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert weights(again.policy).equal(weights(whole.policy))
        assert weights(again.reward).equal(weights(whole.reward))
        assert weights(again.reference).equal(weights(whole.reference))


def test_nothing_to_learn_first_is_refused():
    with pytest.raises(ValueError, match=r"learners_first is 2, but no reward and no baseline of the recipe learns"):
        build(ToyTask(), learners_first=2)


def test_a_delayed_actor_plays_what_is_learnt_from(tmp_path):
    module = fit(tmp_path, build(ToyTask(), objective=PPO(), reference=Reference(decay=0.9, draws=True)), steps=3)
    rollout = module.last_experience.rollout
    assert not weights(module.reference.copy).equal(weights(module.policy))
    drawn_by = {who: policy.eval()(rollout).logprobs for who, policy in parts(module).items()}
    mine, theirs = ((rollout.logprobs - drawn_by[who]).abs().max() for who in ("policy", "delayed"))
    # The reference has followed once more since: it is nearer by far, if not equal.
    assert theirs < mine / 3
    assert module.delayed is module.reference.copy


def parts(module):
    return {"policy": module.policy, "delayed": module.delayed}


def test_a_reference_that_draws_is_another_policy():
    with pytest.raises(ValueError, match="draws: true without decay or path"):
        Reference(draws=True)


def test_completions_begin_as_asked_and_are_scored(tmp_path):
    module = fit(tmp_path, build(ToyTask()))
    prompts = module.last_experience.rollout.prompts
    openings = [[0, 0]] * 5 + [[1]] * (len(prompts) - 5)
    rollout, signal = module.complete(prompts, openings)
    assert rollout.tokens[:5, :2].eq(0).all()
    assert rollout.tokens[5:, 0].eq(1).all()
    assert not rollout.action_mask[:5, :2].any()
    assert rollout.texts is not None
    letters = [
        float(line[:length].count(0)) for line, length in zip(rollout.tokens.tolist(), rollout.lengths, strict=True)
    ]
    assert signal.total.tolist() == letters


class Against(Objective):
    """Looks at what the reference policy thinks of the human answers."""

    samples, compares_answers = False, True

    def __init__(self):
        super().__init__()
        self.seen = []

    def count(self, experience):
        return torch.tensor(float(len(experience.expert)))

    def loss(self, policy, experience):
        output = policy(experience.expert)
        self.seen.append((experience.expert.reference_logprobs, output.logprobs.detach()))
        return Loss(-output.logprobs.sum())


def test_human_answers_are_compared_with_the_reference_where_it_is_asked(tmp_path):
    module = fit(tmp_path, build(ToyTask(), objective=Against(), replay=Expert(), reference=Reference()), steps=2)
    (first, same), (second, other) = module.objective.seen
    assert torch.allclose(first, same, atol=1e-6)
    assert not torch.allclose(second, other, atol=1e-2)
    plain = fit(tmp_path, build(ToyTask(), objective=CrossEntropy(), replay=Expert(), reference=Reference()))
    assert plain.last_experience.expert.reference_logprobs is None


class Lengths(nn.Module, LearnsAlone):
    """Learns the mean length of the human answers."""

    def __init__(self):
        super().__init__()
        self.guess = nn.Parameter(torch.zeros(()))
        self.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.25)

    def lessons(self, experience, sampler):
        assert sampler is None
        yield experience

    def count(self, lesson):
        return torch.tensor(float(len(lesson.expert)))

    def learn(self, lesson):
        return Loss(((self.guess - lesson.expert.lengths) ** 2).sum(), {"guess": self.guess.detach()})

    def metric(self) -> Metric:
        return Named()

    def examine(self, lesson, metric):
        assert not torch.is_grad_enabled()
        assert not self.training
        metric.update((self.guess - lesson.expert.lengths).abs())


class Named(MeanMetric):
    def compute(self):
        return {"error": super().compute()}


@pytest.mark.parametrize("budget", [None, 1])
def test_a_learner_can_be_trained_alone(tmp_path, budget):
    module = fit(tmp_path, LearnerAlone(Lengths(), ToyTask().facts(), token_budget=budget), steps=4, validate=True)
    assert module.steps_done == 3
    assert float(module.learner.guess) > 1
    assert module.trainer.callback_metrics["val/error"] < 2
    assert "train/guess" in module.trainer.callback_metrics


def test_alone_it_resumes_bit_for_bit(tmp_path):
    def module():
        return LearnerAlone(Lengths(), ToyTask().facts())

    saved = ModelCheckpoint(dirpath=tmp_path / "whole", save_top_k=-1, filename="{epoch}", every_n_epochs=1)
    whole = fit(tmp_path, module(), epochs=2, callbacks=[saved])
    again = fit(tmp_path, module(), epochs=2, ckpt=tmp_path / "whole" / "epoch=0.ckpt")
    assert weights(again).equal(weights(whole))


def test_what_cannot_learn_alone_is_refused():
    with pytest.raises(ValueError, match="Guess learns beside a policy only"):
        LearnerAlone(Guess(), ToyTask().facts())


def test_an_objective_that_needs_its_own_episodes_refuses_those_of_another():
    with pytest.raises(ValueError, match=r"Reinforce: model\.reference has draws: true"):
        build(ToyTask(), reference=Reference(decay=0.9, draws=True))

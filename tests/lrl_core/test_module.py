"""The training step: nothing that should not matter changes the update; seeds, resume and phases."""

import copy
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lrl_core.interfaces import Baseline, Learner, Reward
from lrl_core.module import PolicyGradient
from lrl_core.phases import WarmUp
from lrl_core.testing.toy import TableReward
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import Advantage, Loss, RewardSignal
from lrl_plugins.baselines.means import LeaveOneOut, RunningMean
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.objectives.sum import Sum
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh


def letters_a(tokens):
    return float(tokens.count(0))


class Fussy(TableReward):
    """Cannot judge an episode that begins with b."""

    def __init__(self):
        super().__init__(lambda tokens: float("nan") if tokens[0] == 1 else letters_a(tokens))


def build(task, **options):
    torch.manual_seed(1)
    settings = {
        "policy": Recurrent(cell="gru", embedding=6, hidden=8, dropout=0.3, layers=2),
        "objective": Reinforce(),
        "replay": Fresh(),
        "decoder": Sample(max_length=4, samples=3),
        "reward": TableReward(letters_a),
        "baseline": LeaveOneOut(),
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.5),
    }
    return PolicyGradient(task=task.facts(), **settings | options)


def fit(tmp_path, steps=3, task=None, epochs=1, callbacks=(), ckpt=None, module=None, **options):
    task = task or ToyTask()
    module = module or build(task, **options)
    torch.manual_seed(7)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, task, ckpt_path=ckpt, **({"weights_only": False} if ckpt else {}))
    return module


def parameters(module):
    return torch.cat([p.detach().flatten() for p in module.policy.parameters()])


@pytest.mark.parametrize("budget", [1, 20, 60])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Reinforce(aggregation="token-mean", entropy_bonus=0.05),
        lambda: Reinforce(aggregation="seq-mean-token-mean"),
        lambda: Reinforce(aggregation="seq-mean-token-sum"),
        lambda: Reinforce(aggregation="seq-mean-token-sum-norm", length=4),
        lambda: Sum({"rl": Reinforce(), "ml": CrossEntropy()}, {"ml": 0.3}),
    ],
    ids=["token-mean", "seq-token-mean", "token-sum", "norm", "sum"],
)
def test_micro_batches_change_no_update(tmp_path, make, budget):
    """Some rewards are NaN, so the denominators differ between micro-batches; dropout is in the configuration."""
    policy = {"policy": Recurrent(cell="gru", embedding=6, hidden=8)}  # answers are learnt with dropout: none here
    whole = fit(tmp_path, objective=make(), reward=Fussy(), **copy.deepcopy(policy))
    parts = fit(tmp_path, objective=make(), reward=Fussy(), token_budget=budget, **copy.deepcopy(policy))
    start = parameters(build(ToyTask(), **policy))
    assert (parameters(whole) - start).abs().max() > 1e-3
    assert torch.allclose(parameters(whole), parameters(parts), atol=1e-5)


def test_one_seed_gives_one_run(tmp_path):
    assert parameters(fit(tmp_path)).equal(parameters(fit(tmp_path)))


class Ratios(Callback):
    def __init__(self):
        self.errors, self.training = [], []

    def on_train_batch_end(self, trainer, module, *rest):
        self.errors.append(float(trainer.callback_metrics["train/ratio/first_error"]))


@pytest.mark.parametrize("truncation", [{"temperature": 0.7}, {"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.5}])
def test_the_importance_ratio_of_a_fresh_rollout_is_one(tmp_path, truncation):
    """With dropout in the configuration: episodes are played and read without it."""
    seen = Ratios()
    fit(tmp_path, callbacks=[seen], decoder=Sample(max_length=4, samples=3, **truncation))
    assert len(seen.errors) == 3
    assert max(seen.errors) < 1e-4


def test_unjudged_rows_teach_nothing_and_are_counted(tmp_path):
    class Never(Reward):
        def score(self, rollout):
            return RewardSignal(torch.full((len(rollout),), torch.nan))

    module = fit(tmp_path, reward=Never())
    assert parameters(module).equal(parameters(build(ToyTask())))
    assert module.trainer.callback_metrics["reward/unjudged"] == 12


class OnlyOnce(TableReward):
    """Judges the first batch, then never again."""

    def __init__(self):
        super().__init__(letters_a)
        self.calls = 0

    def score(self, rollout):
        self.calls += 1
        signal = super().score(rollout)
        return signal if self.calls == 1 else RewardSignal(torch.full_like(signal.total, torch.nan))


def test_momentum_does_not_move_the_policy_while_nothing_can_be_judged(tmp_path):
    adam = {"optimizer": lambda p: torch.optim.Adam(p, lr=0.1)}
    once = fit(tmp_path, steps=1, reward=OnlyOnce(), **adam)
    thrice = fit(tmp_path, steps=3, reward=OnlyOnce(), **adam)
    assert not parameters(once).equal(parameters(build(ToyTask())))
    assert parameters(once).equal(parameters(thrice))


def test_resume_in_the_middle_of_an_epoch_is_bit_for_bit(tmp_path):
    """A running mean, Adam's moments, dropout of the warm-up, the order of the data and every draw come back."""
    options = {
        "baseline": RunningMean(decay=0.5),
        "objective": Sum({"rl": Reinforce(), "ml": CrossEntropy()}),
        "optimizer": torch.optim.Adam,
    }
    task = ToyTask(prompts=20)
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = fit(tmp_path, steps=5, epochs=3, task=task, callbacks=[keep], **copy.deepcopy(options))
    middle = tmp_path / "step=7.ckpt"
    resumed = fit(tmp_path, steps=5, epochs=3, task=ToyTask(prompts=20), ckpt=middle, **options)
    assert resumed.steps_done == whole.steps_done == 15
    assert parameters(resumed).equal(parameters(whole))
    assert resumed.baseline.mean.equal(whole.baseline.mean)


class Spy(Sample):
    def decode(self, policy, prompts, environment=None):
        self.calls = getattr(self, "calls", 0) + 1
        return super().decode(policy, prompts, environment)


def test_nothing_is_sampled_before_the_start_epoch(tmp_path):
    spy = Spy(max_length=4, samples=3)
    warm = WarmUp(2, CrossEntropy(), Expert(), lambda p: torch.optim.SGD(p, lr=0.1))
    module = fit(tmp_path, epochs=2, decoder=spy, warm_up=warm)
    assert not hasattr(spy, "calls")
    assert module.last_experience.rollout is None
    spy = Spy(max_length=4, samples=3)
    module = fit(tmp_path, epochs=3, decoder=spy, warm_up=replace(warm))
    assert spy.calls == 3
    assert module.last_experience.rollout is not None


def test_the_warm_up_has_an_optimiser_of_its_own_and_comes_first(tmp_path):
    warm = WarmUp(1, CrossEntropy(), Expert(), lambda p: torch.optim.SGD(p, lr=0.0))
    module = fit(tmp_path, warm_up=warm)
    assert parameters(module).equal(parameters(build(ToyTask())))


def test_start_from_takes_the_policy_alone(tmp_path):
    keep = ModelCheckpoint(dirpath=tmp_path, filename="first")
    first = fit(tmp_path, callbacks=[keep])
    again = build(ToyTask(), start_from=str(tmp_path / "first.ckpt"))
    assert parameters(again).equal(parameters(first))
    assert again.steps_done == 0
    with pytest.raises(ValueError, match="does not fit Recurrent"):
        build(ToyTask(), start_from=str(tmp_path / "first.ckpt"), policy=Recurrent(embedding=5, hidden=8))


class LengthCritic(Baseline, Learner):
    """One learnt number per position."""

    updates = 2

    def __init__(self):
        super().__init__()
        self.worth = nn.Parameter(torch.zeros(4))
        self.optimizer = lambda p: torch.optim.SGD(p, lr=0.5)

    def advantage(self, rollout, reward, sampler):
        from lrl_core.functional import compared_with

        value = self.worth[: rollout.tokens.shape[1]].expand(rollout.tokens.shape)
        return replace(compared_with(value, rollout, reward), target=reward.total[:, None].expand(rollout.tokens.shape))

    def count(self, experience):
        return experience.learn_mask.sum().float()

    def learn(self, experience):
        value = self.worth[: experience.rollout.tokens.shape[1]]
        error = (value - experience.advantage.target) ** 2
        return Loss(torch.where(experience.learn_mask, error, 0).sum(), {"critic": error.detach().mean()})


def test_a_learner_among_the_baselines_learns(tmp_path):
    module = fit(tmp_path, baseline=LengthCritic())
    assert (module.baseline.worth.detach() > 0.1).any()


class Wrong(Baseline):
    def advantage(self, rollout, reward, sampler):
        return Advantage(reward.total)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": Greedy(max_length=4), "baseline": RunningMean()}, "no draws from the policy"),
        ({"decoder": Sample(max_length=4)}, "LeaveOneOut: the decoder Sample draws 1 sample"),
        ({"reward": None, "baseline": None}, "names no reward, baseline"),
        ({"replay": Expert()}, "Reinforce learns from episodes, but the replay Expert draws none"),
        ({"decoder": None, "objective": CrossEntropy(), "replay": Expert()}, "neither decoder nor evaluation_decoder"),
    ],
)
def test_recipes_that_cannot_work_are_refused_when_they_are_read(options, message):
    with pytest.raises(ValueError, match=message):
        build(ToyTask(), **options)


def test_a_baseline_of_the_wrong_shape_is_named(tmp_path, shapes_unchecked):
    with pytest.raises(ValueError, match=r"Baseline Wrong: got advantages of shape \(12,\)"):
        fit(tmp_path, baseline=Wrong())


def test_a_gradient_that_is_not_finite_names_step_and_prompts(tmp_path):
    with pytest.raises(FloatingPointError, match=r"training step 0.*toy-"):
        fit(tmp_path, reward=TableReward(lambda tokens: 1e38 * len(tokens)), optimizer=torch.optim.Adam)


def test_reinforce_learns_the_toy_task(tmp_path):
    module = fit(tmp_path, epochs=60, task=ToyTask(prompts=12), optimizer=lambda p: torch.optim.Adam(p, lr=0.02))
    assert module.last_experience.reward.total.mean() > 3.5  # four letters a

"""The reference policy: when it is taken, how it follows, and that a resumed run has the same one."""

import threading

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lrl_core.module import PolicyGradient
from lrl_core.phases import WarmUp
from lrl_core.reference import Reference
from lrl_core.registry import PluginError
from lrl_core.testing.toy import TableReward
from lrl_core.testing.toy_task import ToyTask
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.baselines.self_critical import SelfCritical
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.ppo import PPO
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.kl_penalty import KLPenalty
from lrl_plugins.rewards.sum import Sum


def fit(folder, epochs, reference, steps=3, warm_up=1, ckpt=None, start_from=None):
    torch.manual_seed(1)
    task = ToyTask(prompts=20)
    module = PolicyGradient(
        task=task.facts(),
        policy=Recurrent(cell="gru", embedding=6, hidden=8),
        objective=Reinforce(),
        replay=Fresh(),
        decoder=Sample(max_length=4, samples=3, temperature=0.8),
        reward=Sum(
            {"a": TableReward(lambda tokens: float(tokens.count(0))), "kl": KLPenalty(0.1, target=0.5, horizon=10)}
        ),
        baseline=LeaveOneOut(),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
        warm_up=WarmUp(warm_up, CrossEntropy(), Expert()),
        reference=reference,
        start_from=start_from,
    )
    torch.manual_seed(7)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=steps,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")],
    )
    trainer.fit(module, task, ckpt_path=ckpt, **({"weights_only": False} if ckpt else {}))
    return module


def weights(policy):
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def saved_policy(path):
    state = torch.load(path, weights_only=False)["state_dict"]
    return torch.cat([value.flatten() for name, value in state.items() if name.startswith("policy.")])


def test_the_reference_is_the_policy_after_the_warm_up_and_holds_still(tmp_path):
    module = fit(tmp_path, 3, Reference())
    assert weights(module.reference.copy).equal(saved_policy(tmp_path / "step=3.ckpt"))
    assert not weights(module.policy).equal(weights(module.reference.copy))
    assert not any(parameter.requires_grad for parameter in module.reference.parameters())


def test_the_divergence_is_0_at_the_first_step_and_grows(tmp_path):
    first = fit(tmp_path / "one", 1, Reference(), steps=1, warm_up=0)
    assert float(first.trainer.callback_metrics["kl/reference"]) == pytest.approx(0, abs=1e-5)
    later = fit(tmp_path / "two", 4, Reference(), warm_up=0)
    assert abs(float(later.trainer.callback_metrics["kl/reference"])) > 0.01


def test_a_checkpoints_policy_can_be_the_reference_and_the_start(tmp_path):
    fit(tmp_path / "first", 2, Reference())
    path = str(tmp_path / "first" / "step=6.ckpt")
    module = fit(tmp_path / "second", 2, Reference(path=path), start_from=path, warm_up=0)
    assert weights(module.reference.copy).equal(saved_policy(path))
    with pytest.raises(FileNotFoundError):
        fit(tmp_path / "third", 1, Reference(path="nowhere.ckpt"))


def test_a_moving_average_follows_the_policy(tmp_path):
    """After one step from the start w0 to w1 it is w0 + (1 - decay)(w1 - w0)."""
    module = fit(tmp_path, 1, Reference(decay=0.75), steps=1, warm_up=0)
    start = weights(fit(tmp_path / "none", 1, Reference(), steps=1, warm_up=0).reference.copy)
    expected = start + 0.25 * (weights(module.policy) - start)
    assert torch.allclose(weights(module.reference.copy), expected, atol=1e-7)


@pytest.mark.parametrize("decay", [None, 0.9], ids=["frozen", "moving-average"])
def test_resume_has_the_same_reference_and_coefficient_bit_for_bit(tmp_path, decay):
    whole = fit(tmp_path / "whole", 3, Reference(decay=decay))
    resumed = fit(tmp_path / "resumed", 3, Reference(decay=decay), ckpt=tmp_path / "whole" / "step=5.ckpt")
    assert weights(resumed.policy).equal(weights(whole.policy))
    assert weights(resumed.reference).equal(weights(whole.reference))
    coefficient = whole.reward.terms["kl"].coefficient
    assert resumed.reward.terms["kl"].coefficient.equal(coefficient)
    assert float(coefficient) != 0.1


def test_a_token_budget_changes_nothing(tmp_path):
    module = fit(tmp_path, 1, Reference(), steps=1, warm_up=0)
    rollout = module.last_experience.rollout
    whole = module.reference.logprobs(module.policy, rollout)
    module.reference.token_budget = 10
    assert torch.allclose(module.reference.logprobs(module.policy, rollout), whole, atol=1e-6)


def test_an_impossible_decay_is_refused():
    with pytest.raises(ValueError, match=r"Reference: decay is 1\.5"):
        Reference(decay=1.5)


class Elsewhere(TableReward):
    """Writes down in which thread it judged and what it was given."""

    def __init__(self, concurrent):
        super().__init__(lambda tokens: float(tokens.count(0)))
        self.concurrent, self.seen = concurrent, set()

    def score(self, rollout):
        aside = threading.current_thread() is not threading.main_thread()
        self.seen.add((aside, rollout.reference_logprobs is None, torch.is_grad_enabled()))
        return super().score(rollout)


class Numbers(Callback):
    def __init__(self):
        self.of_steps = []

    def on_train_batch_end(self, trainer, module, *rest):
        untimed = ("time/", "tokens_per_second", "memory/")
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.of_steps.append({name: value for name, value in numbers.items() if not name.startswith(untimed)})


def beside(folder, reward, reference, **options):
    torch.manual_seed(1)
    task, numbers = ToyTask(prompts=20), Numbers()
    module = PolicyGradient(
        task=task.facts(),
        policy=Recurrent(cell="gru", embedding=6, hidden=8, dropout=0.2, layers=2),
        objective=PPO(kl_weight=0.1),
        replay=Fresh(),
        decoder=Sample(max_length=4, samples=3),
        reward=reward,
        baseline=SelfCritical(),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
        reference=reference,
        **options,
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[numbers],
    )
    torch.manual_seed(7)
    trainer.fit(module, task)
    return module, numbers.of_steps


def test_scoring_beside_the_reference_changes_no_number(tmp_path):
    early, late = Elsewhere(True), Elsewhere(False)
    one, while_reading = beside(tmp_path, early, Reference())
    other, after_reading = beside(tmp_path, late, Reference())
    assert early.seen == {(True, True, False)}
    assert late.seen == {(False, False, False)}
    assert weights(one.policy).equal(weights(other.policy))
    assert repr(while_reading) == repr(after_reading)  # as text, because NaN differs from itself
    assert while_reading[-1]["kl/reference"] != 0


class Fails(Elsewhere):
    def score(self, rollout):
        raise KeyError("no such column")


@pytest.mark.parametrize("concurrent", [True, False])
def test_a_reward_that_fails_is_named_wherever_it_is_scored(tmp_path, concurrent):
    with pytest.raises(PluginError, match=r"Fails \(.*\) failed while scoring 12 episodes: KeyError") as caught:
        beside(tmp_path, Fails(concurrent), Reference())
    assert isinstance(caught.value.__cause__, KeyError)

"""The critic: hand-made numbers, exactness in the tree world, what it learns, and that a run of it resumes."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lrl_core.interfaces import Policy, bind_all
from lrl_core.module import PolicyGradient
from lrl_core.sampling import Sampling
from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import check_baseline, toy_experience
from lrl_core.testing.toy import (
    TREE_TABLE,
    TablePolicy,
    TableReward,
    ToySampler,
    ToyTokenizer,
    every_episode,
    toy_facts,
    toy_prompts,
    tree_world,
)
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import Advantage, Experience, PolicyOutput, RewardSignal, Rollout
from lrl_core.vocab import Head
from lrl_plugins.baselines.value import Value
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.ppo import PPO
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.fresh import Fresh

TREE_VALUES = [0.919557, 0.555207, 1.170004, 1.065957]
"""Expected reward of the tree world before the first token, and after each first token."""


class Says(Policy):
    """A policy with a value head that always says the same; `asked` is what it was last shown."""

    def __init__(self, values):
        super().__init__()
        self.says = torch.tensor(values, dtype=torch.float64)

    def forward(self, rollout):
        self.asked = rollout
        hidden = torch.zeros(*rollout.tokens.shape, 1, dtype=torch.float64)
        head = Head(torch.zeros(3, 1, dtype=torch.float64), None)
        values = self.says[:, : rollout.tokens.shape[1]].expand(rollout.tokens.shape)
        return PolicyOutput(rollout, hidden, head, values=torch.where(rollout.action_mask, values, 0))

    def begin(self, prompts):
        raise NotImplementedError

    def step(self, tokens, state):
        raise NotImplementedError


def line(masks, terminated=None):
    """Episodes whose real tokens are given: 1 the policy chose, 0 an environment's word."""
    width = max(len(mask) for mask in masks)
    lengths = torch.tensor([len(mask) for mask in masks])
    action_mask = torch.tensor([[bool(x) for x in mask] + [False] * (width - len(mask)) for mask in masks])
    return Rollout(
        prompts=toy_prompts(len(masks)),
        tokens=torch.zeros(action_mask.shape, dtype=torch.long),
        lengths=lengths,
        action_mask=action_mask,
        logprobs=torch.zeros(action_mask.shape, dtype=torch.float64),
        terminated=torch.tensor(terminated or [True] * len(masks)),
        sampling=Sampling(),
    )


def asked(baseline, rollout, policy, total, by_token=None):
    reward = RewardSignal(
        torch.tensor(total, dtype=torch.float64),
        None if by_token is None else torch.tensor(by_token, dtype=torch.float64),
    )
    return baseline.advantage(rollout, reward, ToySampler(policy, Sample(), TableReward(len)))


def close(tensor, expected):
    assert torch.allclose(tensor, torch.tensor(expected, dtype=torch.float64), atol=1e-9), tensor


@pytest.mark.parametrize(
    ("lam", "better", "returns"),
    [
        (0.0, [0.3, 0.2, 0.3], [0.5, 0.7, 1]),
        (0.95, [0.76075, 0.485, 0.3], [0.96075, 0.985, 1]),
        (1.0, [0.8, 0.5, 0.3], [1, 1, 1]),
    ],
)
def test_generalised_advantages_by_hand(lam, better, returns):
    got = asked(Value(lam=lam), line([[1, 1, 1]]), Says([[0.2, 0.5, 0.7]]), [1.0])
    close(got.value, [better])
    close(got.target, [returns])
    close(got.values, [[0.2, 0.5, 0.7]])


def test_an_environments_words_are_stepped_over_and_what_they_earn_is_the_last_choices():
    policy = Says([[0.2, 9, 0.5, 0.7, 9]])
    words = line([[1, 0, 1, 1, 0]])
    close(asked(Value(lam=0.95), words, policy, [1.0]).value, [[0.76075, 0, 0.485, 0.3, 0]])
    paid = [[0.0, 0.25, 0.0, 0.5, 0.25]]
    got = asked(Value(lam=0.0), words, policy, [1.0], paid)
    close(got.value, [[0.25 + 0.5 - 0.2, 0, 0.2, 0.75 - 0.7, 0]])
    close(got.values, [[0.2, 0, 0.5, 0.7, 0]])


def test_discount_and_rewards_by_token():
    got = asked(Value(gamma=0.5), line([[1, 1, 1]]), Says([[0.0, 0.0, 0.0]]), [7.0], [[1.0, 2.0, 4.0]])
    close(got.value, [[1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4]])


def test_padding_and_unjudged_rows_get_nothing():
    rollout = line([[1], [1, 1, 1], [1, 1]])
    got = asked(Value(), rollout, Says([[0.5, 0.5, 0.5]]), [2.0, 1.0, float("nan")])
    close(got.value, [[1.5, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]])
    close(got.target, [[2, 0, 0], [1, 1, 1], [0, 0, 0]])


def test_cut_episodes_are_worth_what_the_critic_expects_after_their_end():
    policy = Says([[0.2, 0.5, 0.7, 0.9]])
    rollout = line([[1, 1, 1], [1, 1, 1], [1, 1]], terminated=[False, True, False])
    total = [1.0, 1.0, 0.0]
    got = asked(Value(gamma=0.5, lam=0.0, bootstrap=True), rollout, policy, total)
    first = [0.5 * 0.5 - 0.2, 0.5 * 0.7 - 0.5]
    close(got.value, [[*first, 1 + 0.5 * 0.9 - 0.7], [*first, 1 - 0.7], [*first, 0]])
    assert policy.asked.lengths.tolist() == [4, 3, 3]
    plain = asked(Value(gamma=0.5, lam=0.0), rollout, policy, total)
    close(plain.value, [[*first, 1 - 0.7], [*first, 1 - 0.7], [first[0], -0.5, 0]])


class Known(nn.Module):
    """A head that is not learnt: the worth of each line of the table."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor([*values, 0.0], dtype=torch.float64)

    def forward(self, hidden):
        return hidden @ self.values


def critic(values=None, **options):
    """A critic of the tree world: its states are the lines of a table (and one for episodes of another world)."""
    baseline = Value(network=TablePolicy(torch.zeros(5, 3)), **options)
    if values is not None:
        baseline.head = Known(values)
    return baseline


def test_the_true_values_give_the_known_variance():
    policy, reward = tree_world()
    sampler = ToySampler(policy, Sample(max_length=2), reward)
    _, variance = gradient_moments(policy, reward, critic(TREE_VALUES), Reinforce(), sampler, 1)
    assert variance == pytest.approx(0.864422, abs=2e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},  # an untaught critic, lam 1
        {"values": [3.0, -1.0, 0.5, 0.0]},  # a wrong one
        {"values": TREE_VALUES, "lam": 0.5},  # the true one with any lam
    ],
    ids=["untaught", "wrong", "true"],
)
def test_expected_gradient_is_the_policy_gradient(options):
    check_baseline(lambda: critic(**options), Reinforce(), Sample(max_length=2, samples=2))


def test_a_network_learns_the_expected_reward_of_every_state():
    policy, reward = tree_world()
    everything, probability = every_episode(policy, 2)
    rows = torch.arange(9).repeat_interleave((probability * 1_000).round().long())
    rollout = everything.select(rows)
    signal = reward.score(rollout)
    baseline = critic()
    bind_all(baseline, toy_facts(ToyTokenizer(3)))
    advantage = baseline.advantage(rollout, signal, ToySampler(policy, Sample(), reward))
    experience = Experience(rollout, signal, advantage)
    optimizer = torch.optim.SGD(baseline.head.linear.parameters(), lr=0.8)
    for _ in range(300):
        optimizer.zero_grad()
        loss = baseline.learn(experience)
        (loss.total / baseline.count(experience)).backward()
        optimizer.step()
    learned = baseline.head.linear.weight[0, :4] + baseline.head.linear.bias
    assert torch.allclose(learned, torch.tensor(TREE_VALUES, dtype=torch.float64), atol=2e-3)
    assert 0 < loss.metrics["value/explained_variance"] < 1


def test_the_loss_by_hand_clipped_and_not():
    experience = toy_experience()
    mask = experience.learn_mask
    target, before = torch.full(mask.shape, 2.0).double(), torch.full(mask.shape, 0.5).double()
    taught = Experience(experience.rollout, experience.reward, Advantage(target, target, before))
    for clip, expected in ((None, 0.5 * 1.0**2), (0.2, 0.5 * 1.3**2)):  # V is 1, held at 0.7
        baseline = Value(network=TablePolicy(torch.zeros(5, 4), eos=3), clip=clip)
        bind_all(baseline, toy_facts(ToyTokenizer(4, eos=3)))
        baseline.head.linear.bias.data.fill_(1.0)
        assert baseline.learn(taught).total.item() == pytest.approx(expected * mask.sum().item())
        assert baseline.count(taught) == mask.sum()


def test_a_network_is_read_without_dropout_and_without_gradients():
    task = ToyTask()
    baseline = Value(network=Recurrent(embedding=6, hidden=8, dropout=0.5, layers=2))
    bind_all(baseline, task.facts())
    torch.nn.init.normal_(baseline.head.linear.weight)
    experience = toy_experience()
    prompts = task.facts().example.select(torch.tensor([0, 0, 1, 1]))
    rollout = replace(experience.rollout, prompts=prompts)
    baseline.train()
    sampler = ToySampler(TablePolicy(TREE_TABLE), Sample(), TableReward(len))
    first, second = (baseline.advantage(rollout, experience.reward, sampler) for _ in range(2))
    assert first.values.equal(second.values)
    assert not first.value.requires_grad
    assert (first.values[rollout.action_mask] != 0).all()


def test_a_policy_without_a_value_head_is_refused_when_the_recipe_is_read():
    policy, reward = tree_world()
    baseline = Value()
    bind_all(baseline, toy_facts(ToyTokenizer(3)))
    with pytest.raises(ValueError, match="the policy TablePolicy, which has no value head"):
        baseline.check(ToySampler(policy, Sample(), reward))
    baseline.check(ToySampler(Says([[0.0]]), Sample(), reward))
    critic().check(ToySampler(policy, Sample(), reward))


@pytest.mark.parametrize("options", [{"gamma": 1.5}, {"lam": -0.1}, {"clip": 0.0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=f"Value: {next(iter(options))} is"):
        Value(**options)


def fit(folder, ckpt=None, **options):
    torch.manual_seed(1)
    task = ToyTask()
    settings = {
        "policy": Recurrent(cell="gru", embedding=6, hidden=8),
        "objective": Reinforce(),
        "baseline": Value(network=Recurrent(cell="gru", embedding=5, hidden=7), updates=2, clip=0.2),
    }
    module = PolicyGradient(
        task=task.facts(),
        replay=Fresh(),
        decoder=Sample(max_length=4, samples=3),
        reward=TableReward(lambda tokens: float(tokens.count(0))),
        **settings | options,
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=2,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")],
    )
    trainer.fit(module, task, ckpt_path=ckpt)
    return module


def parameters(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_a_run_with_a_critic_resumes_bit_for_bit(tmp_path):
    whole = fit(tmp_path)
    first = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))[1]
    assert (whole.baseline.head.linear.weight != 0).any()
    assert parameters(fit(tmp_path / "again", ckpt=first)).equal(parameters(whole))


def test_the_policys_own_value_head_is_trained_by_the_objective(tmp_path):
    policy = Recurrent(cell="gru", embedding=6, hidden=8, value_head="detached")
    module = fit(tmp_path, policy=policy, baseline=Value(lam=0.95), objective=PPO(value_weight=0.5))
    assert (module.policy.values.linear.weight != 0).any()
    assert module.learners == []

"""The critic of actions: exact values in the tree world, hand-made targets, its own copy, resuming, what it refuses."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lrl_core.interfaces import bind_all
from lrl_core.module import PolicyGradient
from lrl_core.reference import Reference
from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import EOS, toy_episodes, toy_experience
from lrl_core.testing.toy import (
    TREE_GRADIENT,
    TREE_REWARD,
    TREE_TABLE,
    TablePolicy,
    TableReward,
    ToySampler,
    ToyTokenizer,
    every_episode,
    toy_facts,
    tree_world,
)
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import Experience
from lrl_core.vocab import Head
from lrl_plugins.baselines.critic import Critic, inequality, one_step
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.all_actions import AllActions
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.fresh import Fresh

TREE_VALUES = [0.555207, 1.170004, 1.065957]
"""Expected reward of the tree world after each first token: the exact Q before it."""


def tabular(table=None, size=3, eos=-1, **options):
    """A critic of the tree world that looks its values up: line 0 before the first token, line 1 + k after token k."""
    lines = torch.zeros(1 + size, size) if table is None else table
    critic = Critic(network=TablePolicy(lines), reads="prompt", **options)
    bind_all(critic, toy_facts(ToyTokenizer(size, eos=eos)))
    return critic


def exact():
    return tabular(torch.tensor([TREE_VALUES, *TREE_REWARD], dtype=torch.float64))


def tree_sampler():
    policy, reward = tree_world()
    return ToySampler(policy, Sample(max_length=2), reward)


def test_bootstrapping_reaches_the_exact_values_of_the_tree():
    """Q(y1) = V1(y1) and Q(y1, y2) = R: the fixed point of eq. 7, found without ever seeing a whole return early on."""
    sampler, critic = tree_sampler(), tabular(decay=0.0, rare_penalty=0.0)
    rollout, _ = every_episode(sampler.policy, 2)
    reward = sampler.reward.score(rollout)
    optimizer = torch.optim.SGD(critic.network.parameters(), lr=3.0)
    for _ in range(80):
        experience = Experience(rollout, reward, critic.advantage(rollout, reward, sampler))
        optimizer.zero_grad()
        (critic.learn(experience).total / critic.count(experience)).backward()
        optimizer.step()
        critic.learned(experience)
    learned = critic.network.table.detach()
    assert torch.allclose(learned[0], torch.tensor(TREE_VALUES, dtype=torch.float64), atol=2e-6)
    assert torch.allclose(learned[1:], torch.tensor(TREE_REWARD, dtype=torch.float64), atol=1e-6)


def test_all_actions_with_the_exact_values_have_no_bias_and_the_known_variance():
    sampler = tree_sampler()
    mean, variance = gradient_moments(sampler.policy, sampler.reward, exact(), AllActions(), sampler, 1)
    assert torch.allclose(mean, -torch.tensor(TREE_GRADIENT, dtype=torch.float64), atol=2e-6)
    assert variance == pytest.approx(0.104072, abs=2e-6)


def test_the_advantage_of_the_drawn_token_is_unbiased_with_the_exact_values_and_varies_more():
    sampler = tree_sampler()
    mean, variance = gradient_moments(sampler.policy, sampler.reward, exact(), Reinforce(), sampler, 1)
    assert torch.allclose(mean, -torch.tensor(TREE_GRADIENT, dtype=torch.float64), atol=2e-6)
    assert variance > 0.104072
    rollout, probability = every_episode(sampler.policy, 2)
    better = exact().advantage(rollout, sampler.reward.score(rollout), sampler).value
    assert (probability @ better).abs().max() < 1e-6


def test_values_that_are_all_equal_teach_the_actor_nothing():
    sampler, critic = tree_sampler(), tabular(torch.full((4, 3), 0.7))
    rollout, _ = every_episode(sampler.policy, 2)
    reward = sampler.reward.score(rollout)
    advantage = critic.advantage(rollout, reward, sampler)
    assert advantage.value.abs().max() < 1e-12
    AllActions().loss(sampler.policy, Experience(rollout, reward, advantage)).total.backward()
    assert sampler.policy.table.grad.abs().max() < 1e-12


def test_one_step_targets_by_hand():
    """Environment's words are stepped over, nothing follows the last chosen token, whatever stands on padding."""
    mask = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    earned = torch.tensor([[0.1, 0.0, 0.2, 0.4, 0.0], [1.0, -1.0, 0.0, 0.0, 0.0]])
    following = torch.tensor([[5.0, 99.0, 2.0, 3.0, 99.0], [7.0, 0.5, 99.0, 99.0, 99.0]])
    expected = torch.tensor([[2.1, 0, 3.2, 0.4, 0], [1.5, -1.0, 0, 0, 0]])
    assert torch.allclose(one_step(earned, following, mask), expected)


def test_targets_expect_the_delayed_actor_and_the_slow_copy():
    """The whole reward stands on the last token; before it stands sum over a of p'(a) Q'(a)."""
    sampler, critic = tree_sampler(), tabular(actor="delayed")
    critic.slow.table.data[1:] = torch.tensor(TREE_REWARD)
    delayed = TablePolicy(torch.zeros(4, 3))

    class Delayed(ToySampler):
        delayed = None

    late = Delayed(sampler.policy, sampler.decoder, sampler.reward)
    late.delayed = delayed
    critic.check(late)
    rollout, _ = every_episode(sampler.policy, 2)
    reward = sampler.reward.score(rollout)
    advantage = critic.advantage(rollout, reward, late)
    means = torch.tensor(TREE_REWARD, dtype=torch.float64).mean(1)  # of a delayed actor that knows nothing
    assert torch.allclose(advantage.target[:, 0], means[rollout.tokens[:, 0]])
    assert torch.allclose(advantage.target[:, 1], reward.total)
    assert advantage.values.abs().max() == 0  # the critic itself still says 0


def test_padding_unjudged_rows_and_an_environments_words_get_nothing():
    rollout, reward = toy_episodes()
    critic = tabular(torch.randn(5, 4), size=4, eos=EOS)
    sampler = ToySampler(TablePolicy(torch.zeros(5, 4), eos=EOS), Sample(), TableReward(len))
    advantage = critic.advantage(rollout, reward, sampler)
    taught = rollout.action_mask & reward.judged[:, None]
    for line in (advantage.value, advantage.target):
        assert (line[~taught] == 0).all()
        assert (line[taught] != 0).any()
    assert advantage.actions.hidden.shape[:2] == rollout.tokens.shape


# The penalty on rare tokens


def test_the_penalty_is_that_of_the_values_laid_out():
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(6, 5).double(), torch.randn(11, 5).double(), torch.randn(11).double()
    for head in (Head(weight, bias), Head(weight, None)):
        values = head.logits(hidden)
        naive = (values - values.mean(1, keepdim=True)).pow(2).sum(1)
        assert torch.allclose(inequality(hidden, head), naive, atol=1e-10)


def test_the_penalty_pulls_to_the_mean_and_leaves_equal_values_alone():
    hidden, weight = torch.zeros(1, 2), torch.zeros(4, 2)
    bias = torch.tensor([1.0, 2.0, 3.0, 6.0], requires_grad=True)
    inequality(hidden, Head(weight, bias)).sum().backward()
    assert torch.allclose(bias.grad, 2 * (bias.detach() - 3))  # its sum over actions is 0
    same = torch.full((4,), 5.0, requires_grad=True)
    total = inequality(hidden, Head(weight, same)).sum()
    total.backward()
    assert total == 0
    assert same.grad.abs().max() == 0


def test_the_loss_by_hand_is_a_sum_and_reaches_the_network_alone():
    sampler = tree_sampler()
    critic = tabular(torch.tensor([[0.5, 0.0, 1.0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]), rare_penalty=0.1)
    rollout, _ = every_episode(sampler.policy, 2)
    reward = sampler.reward.score(rollout)
    experience = Experience(rollout, reward, critic.advantage(rollout, reward, sampler))
    loss = critic.learn(experience)
    first = sum(3 * q**2 for q in (0.5, 0.0, 1.0)) + 9 * 0.1 * 0.5  # targets 0: the copy expects 0 after one token
    second = sum(r**2 for row in TREE_REWARD for r in row)
    assert loss.total.item() == pytest.approx(first + second)
    assert critic.count(experience) == 18
    loss.total.backward()
    assert critic.network.table.grad is not None
    assert critic.slow.table.grad is None


# The slowly following copy


def test_the_copy_moves_by_one_minus_decay_when_episodes_were_drawn():
    critic = tabular(torch.ones(4, 3), decay=0.9)
    critic.network.table.data.fill_(3.0)
    critic.learned(Experience())
    assert (critic.slow.table == 1).all()
    critic.learned(toy_experience())
    assert torch.allclose(critic.slow.table, torch.full((4, 3), 1.2).double())
    assert not any(parameter.requires_grad for parameter in critic.slow.parameters())


# A run


def fit(folder, ckpt=None, **options):
    torch.manual_seed(1)
    task = ToyTask()
    settings = {"actor": "delayed", "decay": 0.5, "embedding": 5, "hidden": 8, "updates": 2}
    module = PolicyGradient(
        task=task.facts(),
        policy=Recurrent(cell="gru", embedding=6, hidden=8),
        objective=AllActions(),
        baseline=Critic(**settings | options),
        replay=Fresh(),
        decoder=Sample(max_length=4, samples=3),
        reward=TableReward(lambda tokens: float(tokens.count(0))),
        reference=Reference(decay=0.5, draws=True),
        learners_first=1,
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


@pytest.mark.parametrize("network", [None, lambda: Recurrent(cell="gru", embedding=5, hidden=7)])
def test_a_run_with_a_critic_and_its_copy_resumes_bit_for_bit(tmp_path, network):
    options = {} if network is None else {"network": network()}
    whole = fit(tmp_path, **options)
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    saved = torch.load(checkpoints[-1], weights_only=True)["state_dict"]
    pairs = [(saved[name], saved[name.replace(".network.", ".slow.")]) for name in saved if ".network." in name]
    assert any(not mine.equal(slow) for mine, slow in pairs)
    again = {} if network is None else {"network": network()}
    assert parameters(fit(tmp_path / "again", ckpt=checkpoints[1], **again)).equal(parameters(whole))


# What it refuses


def test_a_delayed_actor_needs_a_reference():
    with pytest.raises(ValueError, match=r"actor: delayed in a recipe without a reference policy.*decay: 0\.999"):
        tabular(actor="delayed").check(tree_sampler())
    tabular().check(tree_sampler())


def test_reading_the_answer_needs_answers():
    critic = Critic(embedding=4, hidden=4)
    bind_all(critic, toy_facts(ToyTokenizer(3)))
    with pytest.raises(ValueError, match="reads: answer and prompts without human answers"):
        critic.check(tree_sampler())
    answered = Critic(embedding=4, hidden=4)
    bind_all(answered, ToyTask().facts())
    answered.check(tree_sampler())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, "decay 1.0"),
        ({"rare_penalty": -0.1}, "rare_penalty -0.1"),
        ({"hidden": 5}, "an even hidden"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Critic(**options)


def test_a_network_beside_a_speaker_must_not_read_the_answer():
    class Speaker:
        reads = (1,)

    facts = replace(ToyTask().facts(), environment=Speaker())
    critic = Critic(network=TablePolicy(TREE_TABLE))
    bind_all(critic, facts)
    with pytest.raises(ValueError, match="piece by piece"):
        critic.check(tree_sampler())

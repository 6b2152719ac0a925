"""Minimum risk, against hand-made numbers for three candidates."""

from dataclasses import replace

import pytest
import torch

from lrl_core.sampling import Sampling
from lrl_core.testing.parts import bigram_world, check_objective, toy_experience
from lrl_core.testing.toy import TablePolicy, ToySampler, stop_world, toy_prompts
from lrl_core.types import Advantage, Experience, RewardSignal, Rollout
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.minimum_risk import MinimumRisk, expected_risk

GOLDEN = [
    (1.0, 0.35, [-0.175, 0.045, 0.13]),
    (0.5, 0.423653, [-0.088002, 0.012284, 0.075718]),
    (0.005, 0.499236, [-0.000834, 0.000001, 0.000833]),
]
"""alpha, risk and its slope by each log-probability for P = .5, .3, .2 and risks 0, .5, 1."""
P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("arguments", [{}, {"alpha": 1.0}, {"alpha": 1.0, "gold": True, "gold_reward": 3.0}])
def test_conforms(arguments):
    check_objective(lambda: MinimumRisk(**arguments))


@pytest.mark.parametrize(("alpha", "risk", "slopes"), GOLDEN)
def test_risk_and_slopes(alpha, risk, slopes):
    scores = P.log().requires_grad_()
    got = expected_risk(scores, torch.tensor([0.0, 0.5, 1.0]).double(), torch.zeros(3, dtype=torch.long), alpha)
    assert got.tolist() == [pytest.approx(risk, abs=1e-6)]
    assert torch.autograd.grad(got.sum(), scores)[0].tolist() == pytest.approx(slopes, abs=1e-6)


def said(tokens, rewards, group=None, expert=None):
    """One-token episodes of a policy that says 0, 1, 2 with probability P."""
    policy, count = TablePolicy(P.log()[None]), len(tokens)
    prompts = replace(toy_prompts(count), group=torch.tensor(group or [0] * count))
    rollout = Rollout(
        prompts=prompts,
        tokens=torch.tensor(tokens)[:, None],
        lengths=torch.ones(count, dtype=torch.long),
        action_mask=torch.ones(count, 1, dtype=torch.bool),
        logprobs=P.log()[torch.tensor(tokens)][:, None],
        terminated=torch.ones(count, dtype=torch.bool),
        sampling=Sampling(),
    )
    signal = RewardSignal(torch.tensor(rewards, dtype=torch.float64))
    human = None if expert is None else replace(rollout.select(torch.tensor(expert)), sampling=None)
    return policy, Experience(rollout, signal, Advantage(torch.zeros(count, 1).double()), human)


def gradient(policy, experience, **arguments):
    objective = MinimumRisk(**{"alpha": 1.0} | arguments)
    loss = objective.loss(policy, experience)
    return loss.total.item(), torch.autograd.grad(loss.total, policy.table)[0][0]


@pytest.mark.parametrize(("alpha", "risk", "slopes"), GOLDEN)
def test_through_the_policy(alpha, risk, slopes):
    """The slopes add up to 0, so they are those of the logits too; the reward is minus the risk."""
    policy, experience = said([0, 1, 2], [0.0, -0.5, -1.0])
    got, slope = gradient(policy, experience, alpha=alpha)
    assert got == pytest.approx(risk, abs=1e-6)
    assert slope.tolist() == pytest.approx(slopes, abs=1e-6)
    assert MinimumRisk().count(experience).item() == 1


def test_a_shift_of_all_rewards_changes_nothing():
    policy, experience = said([0, 1, 2], [0.0, -0.5, -1.0])
    shifted = replace(experience, reward=RewardSignal(experience.reward.total + 7))
    assert torch.allclose(gradient(policy, experience)[1], gradient(policy, shifted)[1], atol=1e-12)


def test_a_sequence_that_was_drawn_twice_counts_once():
    first = gradient(*said([0, 1, 2], [0.0, -0.5, -1.0]))
    again = gradient(*said([0, 1, 1, 2, 0], [0.0, -0.5, -0.5, -1.0, 0.0]))
    assert again[0] == pytest.approx(first[0])
    assert torch.allclose(first[1], again[1])


def test_one_distinct_sample_teaches_nothing():
    policy, experience = said([1, 1], [-0.5, -0.5])
    assert gradient(policy, experience)[1].abs().max() == 0
    assert MinimumRisk().count(experience).item() == 1


def test_unjudged_samples_are_left_out():
    nan = float("nan")
    first = gradient(*said([0, 2], [0.0, -1.0]))
    second = gradient(*said([1, 0, 2, 2], [nan, 0.0, nan, -1.0]))  # the judged twin of an unjudged one stays
    assert first[0] == pytest.approx(second[0])
    assert torch.allclose(first[1], second[1])
    policy, nobody = said([0, 1], [nan, nan])
    assert MinimumRisk().count(nobody).item() == 0
    assert gradient(policy, nobody)[1].tolist() == [0, 0, 0]


def test_prompts_are_apart():
    policy, both = said([0, 1, 2, 0], [0.0, -0.5, -1.0, -2.0], group=[5, 3, 5, 3])
    apart = [said([0, 2], [0.0, -1.0]), said([1, 0], [-0.5, -2.0])]
    assert MinimumRisk().count(both).item() == 2
    assert torch.allclose(gradient(policy, both)[1], sum(gradient(*one)[1] for one in apart))


def test_the_human_answer_is_one_more_candidate():
    with_gold = gradient(
        *said(
            [1, 2],
            [
                -0.5,
                -1.0,
            ],
            expert=None,
        )
    )
    policy, experience = said([1, 2], [-0.5, -1.0])
    human = said([0], [0.0], expert=[0])[1].expert
    got = gradient(policy, replace(experience, expert=human), gold=True, gold_reward=0.0)
    assert got[0] == pytest.approx(0.35)
    assert got[1].tolist() == pytest.approx(GOLDEN[0][2], abs=1e-6)
    assert not torch.allclose(got[1], with_gold[1])


def test_a_human_answer_that_was_drawn_keeps_its_own_reward():
    policy, experience = said([0, 1, 2], [0.0, -0.5, -1.0], expert=[1])
    assert torch.equal(gradient(policy, experience, gold=True)[1], gradient(policy, experience)[1])


def test_a_human_answer_may_hold_what_is_never_drawn():
    policy, experience = said([1, 2], [-0.5, -1.0])
    human = said([0], [0.0], expert=[0])[1].expert
    banned = replace(experience.rollout, sampling=Sampling(banned=(0,)))
    got = gradient(policy, replace(experience, rollout=banned, expert=human), gold=True)
    assert got[1].isfinite().all()
    assert got[1][0] < 0


def test_whole_episodes_are_scored_by_their_sum():
    policy, _ = bigram_world()
    experience = toy_experience()
    loss = MinimumRisk(alpha=1.0).loss(policy, experience)
    scores = policy(experience.rollout).logprobs.sum(1)[[2, 3]]
    risk = -1.0 - (scores.softmax(0) * torch.tensor([0.25, 2.0]).double()).sum()  # the first prompt has one sample left
    assert loss.total.item() == pytest.approx(risk.item())
    assert loss.metrics["distinct"].item() == 1


def test_refusals():
    policy, reward = stop_world()
    with pytest.raises(ValueError, match="Greedy are no draws"):
        MinimumRisk().check(ToySampler(policy, Greedy(), reward))
    with pytest.raises(ValueError, match="draws 1 sample per prompt; expected at least 2"):
        MinimumRisk().check(ToySampler(policy, Sample(), reward))
    MinimumRisk(gold=True).check(ToySampler(policy, Sample(), reward))
    with pytest.raises(ValueError, match="alpha is 0"):
        MinimumRisk(alpha=0)
    with pytest.raises(ValueError, match="no human answers"):
        gradient(*said([0, 1], [0.0, -1.0]), gold=True)

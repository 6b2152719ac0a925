"""The fitted control variate: unbiased by enumeration, and of less variance than with the coefficient 0 or 1."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from lrl_core.functional import compared_with
from lrl_core.interfaces import Baseline, bind_all
from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import check_baseline, toy_experience
from lrl_core.testing.toy import (
    TREE_GRADIENT,
    TREE_REWARD,
    TREE_TABLE,
    TablePolicy,
    ToySampler,
    ToyTokenizer,
    every_episode,
    toy_facts,
    tree_world,
)
from lrl_core.types import Advantage, RewardSignal
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.baselines.control_variate import ControlVariate, fit_without_own
from lrl_plugins.baselines.group import GroupMean
from lrl_plugins.baselines.self_critical import SelfCritical
from lrl_plugins.baselines.whiten import Whiten
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce

BONUS = torch.tensor([0.0, 10.0, 20.0], dtype=torch.float64)
"""What each of three prompts pays on top of the tree world's reward."""


class TwiceTheBonus(Baseline):
    """Knows which prompts pay well, but on the wrong scale."""

    def advantage(self, rollout, reward, sampler):
        return compared_with(2 * BONUS[rollout.prompts.group], rollout, reward)


PAID = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
"""What the three one-token episodes earn besides."""


def moments_over_prompts(baseline):
    """Exact mean and total variance of the policy gradient from one episode of each of the three prompts."""
    policy = TablePolicy(TREE_TABLE[:1])
    everything, probability = every_episode(policy, 1)
    sampler = ToySampler(policy, Sample(max_length=1), tree_world()[1])
    scores = torch.eye(3, dtype=torch.float64) - probability  # d log pi(y) / d logits
    mean, square = torch.zeros(3, dtype=torch.float64), 0.0
    for chosen in product(range(3), repeat=3):
        rows = torch.tensor(chosen)
        rollout = everything.select(rows)
        rollout = replace(rollout, prompts=replace(rollout.prompts, group=torch.arange(3)))
        value = baseline.advantage(rollout, RewardSignal(PAID[rows] + BONUS), sampler).value
        gradient = (value * scores[rows]).mean(0)
        mean += probability[rows].prod() * gradient
        square += float(probability[rows].prod() * gradient.pow(2).sum())
    return mean, square - float(mean.pow(2).sum())


def is_the_gradient(mean):
    """d E[R] / d logits = pi (R - E[R]); the bonus of a prompt changes nothing."""
    probability = torch.tensor(TREE_TABLE[0], dtype=torch.float64).softmax(0)
    return torch.allclose(mean, probability * (PAID - probability @ PAID), atol=1e-12)


def test_the_fitted_coefficient_is_unbiased_and_beats_0_and_1():
    mean, fitted = moments_over_prompts(ControlVariate(TwiceTheBonus()))
    assert is_the_gradient(mean)
    _, all_of_it = moments_over_prompts(TwiceTheBonus())
    _, none_of_it = moments_over_prompts(ControlVariate(Constant()))
    assert fitted < 0.5 * min(all_of_it, none_of_it)


@pytest.mark.parametrize("options", [{"weight": "score"}, {"leave_out": "episode", "prior": 0.0}])
def test_every_way_to_fit_is_unbiased(options):
    mean, _ = moments_over_prompts(ControlVariate(TwiceTheBonus(), **options))
    assert is_the_gradient(mean)


def test_fitting_on_the_episode_itself_would_be_biased():
    """The enumeration can fail: the mean of all three prompts shrinks the gradient."""

    class MeanOfAll(Baseline):
        def advantage(self, rollout, reward, sampler):
            return compared_with(reward.total.mean().expand(3), rollout, reward)

    assert not is_the_gradient(moments_over_prompts(MeanOfAll())[0])


@pytest.mark.parametrize("weight", ["equal", "score"])
def test_leaving_out_the_episode_alone_is_unbiased_within_a_prompt(weight):
    policy, reward = tree_world()
    baseline = ControlVariate(SelfCritical(), leave_out="episode", weight=weight)
    decoder = Sample(max_length=2, samples=2)
    for part in (decoder, baseline):
        bind_all(part, toy_facts(ToyTokenizer(3)))
    mean, _ = gradient_moments(policy, reward, baseline, Reinforce(), ToySampler(policy, decoder, reward), 2)
    assert torch.allclose(-mean, torch.tensor(TREE_GRADIENT, dtype=torch.float64), atol=2e-6)


def test_with_one_prompt_it_is_the_control_itself():
    check_baseline(ControlVariate, Reinforce(), Sample(max_length=2, samples=2))


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def test_the_line_goes_through_the_others():
    control, credits = column(0, 1, 2, 50), column(1, 3, 5, -70)
    alpha, beta = fit_without_own(control, credits, torch.ones_like(control), torch.arange(4))
    assert (alpha[3].item(), beta[3].item()) == pytest.approx((2, 1))
    alpha, beta = fit_without_own(control, credits, torch.ones_like(control), torch.tensor([0, 0, 0, 1]))
    assert alpha[:3].tolist() == [1, 1, 1]  # one other entry: no slope
    assert beta[:3].tolist() == [-120, -120, -120]


def test_the_belief_in_slope_1_wears_off():
    control, credits, own = column(0, 1, 2, 0), column(1, 3, 5, 0), torch.tensor([0, 0, 0, 1])
    alpha, beta = fit_without_own(control, credits, torch.ones_like(control), own, prior=3.0)
    spread_c, spread_r, together = 2 / 3, 8 / 3, 4 / 3
    slope = (together + spread_r) / (spread_c + spread_r)
    assert (alpha[3].item(), beta[3].item()) == pytest.approx((slope, 3 - slope))


def test_with_nothing_else_to_fit_on_the_slope_is_1_and_nothing_is_added():
    one = column(3.0, 4.0)
    alpha, beta = fit_without_own(one, one, torch.ones_like(one), torch.tensor([5, 5]), 1.0)
    assert alpha.tolist() == [1, 1]
    assert beta.tolist() == [0, 0]


def test_weighed_by_scores_the_intercept_is_the_optimal_scalar():
    """E[R |S|^2] / E[|S|^2] = 0.938982 in the tree world: all nine episodes by probability, read by a tenth row."""
    policy, _ = tree_world()
    everything, probability = every_episode(policy, 2)
    p = policy.table.detach().softmax(1)
    first, second = everything.tokens.T
    onehot = torch.eye(3, dtype=torch.float64)
    norms = torch.stack([(onehot[first] - p[0]), (onehot[second] - p[1 + first])], 1).pow(2).sum(2)
    paid = torch.tensor([TREE_REWARD[a][b] for a, b in everything.tokens.tolist()], dtype=torch.float64)
    weight = torch.cat([probability[:, None] * norms, torch.zeros(1, 2, dtype=torch.float64)])
    credits = torch.cat([paid, paid.new_zeros(1)])[:, None].expand(10, 2)
    unit = torch.tensor([0] * 9 + [1])
    _, beta = fit_without_own(torch.zeros_like(credits), credits, weight, unit)
    assert beta[9].item() == pytest.approx(0.938982, abs=1e-6)
    rows = torch.tensor([0, 4])
    rollout = everything.select(rows)
    rollout = replace(rollout, prompts=replace(rollout.prompts, group=torch.arange(2)))
    reward = RewardSignal(torch.tensor([2.0, 5.0], dtype=torch.float64))
    credited = RewardSignal(reward.total, by_token=torch.tensor([[1.0, 1.0], [2.0, 3.0]], dtype=torch.float64))
    got = ControlVariate(Constant(), weight="score").advantage(
        rollout, credited, ToySampler(policy, Sample(), tree_world()[1])
    )
    to_go, seen = torch.tensor([[2.0, 1.0], [5.0, 3.0]], dtype=torch.float64), norms[rows]
    expected = to_go - ((to_go * seen).sum(1) / seen.sum(1)).flip(0)[:, None]
    assert torch.allclose(got.value, expected)


class Critical(Baseline):
    """Predicts 0.5 everywhere, with an advantage that is more than credit minus prediction."""

    def advantage(self, rollout, reward, sampler):
        ones = torch.ones(rollout.tokens.shape, dtype=torch.float64)
        return Advantage(torch.where(rollout.action_mask & reward.judged[:, None], 9.0, 0), 7 * ones, ones / 2)


def test_a_critics_prediction_is_the_control_and_its_target_stays():
    policy, judge = tree_world()
    experience = toy_experience()
    rollout = replace(experience.rollout, prompts=replace(experience.rollout.prompts, group=torch.zeros(4).long()))
    got = ControlVariate(Critical()).advantage(rollout, experience.reward, ToySampler(policy, Sample(), judge))
    assert got.value[0, 0] == 1.0 - 0.5
    assert (got.value[~experience.learn_mask] == 0).all()
    assert (got.target == 7).all()
    assert (got.values == 0.5).all()


@pytest.mark.parametrize("control", [lambda: Whiten(Constant()), lambda: GroupMean("group")])
def test_a_control_that_divides_is_refused(control):
    with pytest.raises(ValueError, match="divides by a spread"):
        ControlVariate(control())


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="ControlVariate: got leave_out"):
        ControlVariate(prior=-1.0)

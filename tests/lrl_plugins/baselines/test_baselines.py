"""Bias and variance of every baseline in the tree world, by enumeration (Williams 1992; golden numbers to 6 digits)."""

from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import Decoder, bind_all
from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import check_baseline, toy_experience
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
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.baselines.means import BatchMean, LeaveOneOut, RunningMean
from lrl_plugins.baselines.self_critical import SelfCritical
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.rewards.normalise import BatchStandardise
from lrl_plugins.rewards.sum import Sum

EXPECTED_REWARD = 0.919557


def moments(baseline, samples):
    policy, reward = tree_world()
    decoder = Sample(max_length=2, samples=2)
    for part in (decoder, baseline):
        bind_all(part, toy_facts(ToyTokenizer(3)))
    return gradient_moments(policy, reward, baseline, Reinforce(), ToySampler(policy, decoder, reward), samples)


@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (Constant, 1.0),
        (lambda: Constant(3.5), 1.0),
        (BatchMean, 0.5),
        (RunningMean, 1.0),
        (lambda: RunningMean(initial=1.0, decay=0.9), 1.0),
        (LeaveOneOut, 1.0),
        (SelfCritical, 1.0),
    ],
    ids=["Constant0", "Constant3.5", "BatchMean", "RunningMean", "RunningMeanDecay", "LeaveOneOut", "SelfCritical"],
)
def test_expected_gradient_is_the_policy_gradient(make, scale):
    check_baseline(make, Reinforce(), Sample(max_length=2, samples=2), scale)


def test_batch_mean_of_three_scales_by_two_thirds():
    mean, _ = moments(BatchMean(), 3)
    assert torch.allclose(mean, -torch.tensor(TREE_GRADIENT, dtype=torch.float64) * 2 / 3, atol=1e-6)


@pytest.mark.parametrize(
    ("baseline", "samples", "variance"),
    [
        (Constant(0.0), 1, 2.063172),
        (SelfCritical(), 1, 1.000842),
        (Constant(EXPECTED_REWARD), 1, 0.927748),
        (Constant(0.938982), 1, 0.927262),
        (LeaveOneOut(), 2, 0.946908),
        (LeaveOneOut(), 3, 0.470261),
        (BatchMean(), 2, 0.236727),
        (BatchMean(), 3, 0.209005),
    ],
    ids=["none", "greedy", "mean", "optimal", "loo2", "loo3", "batch2", "batch3"],
)
def test_total_variance(baseline, samples, variance):
    assert moments(baseline, samples)[1] == pytest.approx(variance, abs=2e-6)


def test_variances_stand_in_order():
    order = [Constant(0.938982), Constant(EXPECTED_REWARD), SelfCritical(), Constant(0.0)]
    variances = [moments(baseline, 1)[1] for baseline in order]
    assert variances == sorted(variances)


def test_running_mean_is_updated_after_use_and_over_all_of_the_past():
    experience = toy_experience()
    rollout, reward = experience.rollout, experience.reward
    baseline = RunningMean()
    first = baseline.advantage(rollout, reward, asks_nothing())
    assert first.value[0, 0] == 1.0  # compared with the initial 0, not with itself
    second = baseline.advantage(rollout, replace(reward, total=reward.total + 1), asks_nothing())
    seen = (1.0 + 0.25 + 2.0) / 3
    assert second.value[0, 0].item() == pytest.approx(2.0 - seen)
    assert baseline.mean.item() == pytest.approx((3.25 + 6.25) / 6)


def test_by_token_rewards_are_credited_to_go():
    rollout = toy_experience().rollout
    by_token = torch.tensor([[1.0, 2, 3, 4], [1, 1, 0, 0], [0, 0, 5, 0], [1, 0, 0, 1]], dtype=torch.float64)
    reward = RewardSignal(by_token.sum(1), by_token=by_token)
    value = Constant().advantage(rollout, reward, asks_nothing()).value
    assert value.tolist() == [[10, 0, 7, 4], [2, 1, 0, 0], [5, 5, 5, 0], [2, 1, 1, 1]]


def test_self_critical_refuses_rewards_that_are_normalised_apart():
    policy, reward = tree_world()
    normalised = Sum({"paid": reward}, normalise={"paid": BatchStandardise()})
    with pytest.raises(ValueError, match="reward Sum normalises each batch in its own way"):
        SelfCritical().check(ToySampler(policy, Sample(), normalised))
    SelfCritical(Greedy()).check(ToySampler(policy, Sample(), Sum({"paid": reward}, {"paid": 2.0})))


class Scripted(Decoder):
    """Says what it is told, twice per prompt."""

    samples = 2

    def __init__(self, says):
        super().__init__()
        self.says = says

    def decode(self, policy, prompts, environment=None):
        rows = torch.arange(len(prompts)).repeat_interleave(2)
        tokens = torch.tensor(self.says)
        return Rollout(
            prompts=prompts.select(rows),
            tokens=tokens,
            lengths=torch.full((len(rows),), 2),
            action_mask=torch.ones_like(tokens, dtype=torch.bool),
            logprobs=torch.zeros(tokens.shape),
            terminated=torch.ones(len(rows), dtype=torch.bool),
        )


def test_a_rival_with_several_samples_is_their_mean_and_unjudged_ones_do_not_count():
    experience = toy_experience()  # prompts 7, 7, 9, 9; the second is unjudged
    rival = Scripted([[0, 0], [1, 1], [2, 2], [2, 0]])
    judge = TableReward(lambda tokens: {(0, 0): 1.0, (1, 1): 2.0, (2, 2): float("nan"), (2, 0): 0.25}[tokens])
    sampler = ToySampler(tree_world()[0], Sample(), judge)
    value = SelfCritical(rival).advantage(experience.rollout, experience.reward, sampler).value
    assert value[:, 0].tolist() == [1.0 - 1.5, 0, 0, 2.0 - 0.25]


def test_a_rival_nobody_can_judge_teaches_nothing():
    experience = toy_experience()
    sampler = ToySampler(tree_world()[0], Sample(), TableReward(lambda tokens: float("nan")))
    rival = Scripted([[0, 0]] * 4)
    assert not SelfCritical(rival).advantage(experience.rollout, experience.reward, sampler).value.any()


@pytest.mark.parametrize(
    ("rival", "expected"),
    [(Greedy(max_length=2), 0.7), (BeamSearch(width=9, max_length=2), 2.0)],
    ids=["greedy", "beam"],
)
def test_the_rival_may_be_any_decoder(rival, expected):
    """Greedy says (c, b); the most probable episode of the tree with a steeper second token is (b, b)."""
    policy = TablePolicy(TREE_TABLE if expected == 0.7 else [[0.2, 0.3, 0.4], [0, 0, 0], [0.0, 5.0, 0.0], [0, 0, 0]])
    everything, _ = every_episode(policy, 2)
    bind_all(rival, toy_facts(ToyTokenizer(3)))
    reward = tree_world()[1]
    sampler = ToySampler(policy, Sample(max_length=2), reward)
    value = SelfCritical(rival).advantage(everything, reward.score(everything), sampler).value
    paid = torch.tensor(TREE_REWARD, dtype=torch.float64).flatten()
    assert torch.allclose(value, (paid - expected)[:, None].expand(9, 2))


def asks_nothing():
    policy, reward = tree_world()
    return ToySampler(policy, Sample(), reward)


def test_leave_one_out_refuses_one_sample_per_prompt():
    policy, reward = tree_world()
    with pytest.raises(ValueError, match="samples to 2 or more"):
        LeaveOneOut().check(ToySampler(policy, Sample(samples=1), reward))

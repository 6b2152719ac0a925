"""Maximum likelihood of the best sample."""

from dataclasses import replace

import pytest
import torch

from lrl_core.sampling import Sampling
from lrl_core.testing.parts import bigram_world, check_objective, toy_experience
from lrl_core.testing.toy import ToySampler, stop_world
from lrl_core.types import RewardSignal
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.raft import RAFT, best_shares

NAN = float("nan")


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"])
def test_conforms(mode):
    check_objective(lambda: RAFT(aggregation=mode, length=7))


def rewarded(*rewards):
    """Episodes of 3, 2, 3 and 4 chosen tokens; the first two are of one prompt, the others of another."""
    return replace(toy_experience(), reward=RewardSignal(torch.tensor(rewards, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("rewards", "shares"),
    [
        ((1, 2, 5, 4), [0, 1, 1, 0]),
        ((1, 1, 5, 4), [0.5, 0.5, 1, 0]),  # ties share
        ((1, NAN, -5, -4), [1, 0, 0, 1]),  # negative rewards, an unjudged episode
        ((NAN, NAN, 5, 4), [0, 0, 1, 0]),  # a prompt without any judged one
    ],
)
def test_shares(rewards, shares):
    assert best_shares(rewarded(*rewards)).tolist() == shares


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_it_is_maximum_likelihood_of_the_best(mode):
    policy, _ = bigram_world()
    experience = rewarded(1, 2, 5, 4)
    best = replace(experience, expert=replace(experience.rollout.select(torch.tensor([1, 2])), sampling=None))
    raft, entropy = RAFT(mode), CrossEntropy(aggregation=mode)
    assert raft.count(experience).item() == entropy.count(best).item()
    mine = torch.autograd.grad(raft.loss(policy, experience).total, policy.table)[0]
    assert torch.allclose(mine, torch.autograd.grad(entropy.loss(policy, best).total, policy.table)[0], atol=1e-12)


def test_ties_weigh_as_much_as_one():
    policy, _ = bigram_world()
    experience = rewarded(1, 1, 5, 4)
    logprobs = policy(experience.rollout).logprobs.sum(1)
    expected = -(logprobs[0] / 2 + logprobs[1] / 2 + logprobs[2])
    assert RAFT("seq-mean-token-sum").loss(policy, experience).total.item() == pytest.approx(expected.item())
    assert RAFT("seq-mean-token-sum").count(experience).item() == 2
    assert RAFT("token-mean").count(experience).item() == pytest.approx(3 / 2 + 2 / 2 + 3)


def test_the_best_is_read_as_a_human_answer():
    """Without the temperature that it was drawn at, and with dropout where the policy has any."""
    policy, _ = bigram_world()
    experience = rewarded(1, 2, 5, 4)
    hot = replace(experience, rollout=replace(experience.rollout, sampling=Sampling(temperature=3.0)))
    assert RAFT().loss(policy, hot).total.item() == RAFT().loss(policy, experience).total.item()


def test_metrics():
    policy, _ = bigram_world()
    metrics = RAFT().loss(policy, rewarded(1, 1, 5, 4)).metrics
    assert metrics["reward/best"].item() == pytest.approx(7 / 3)
    assert metrics["ties"].item() == pytest.approx(2 / 3)


def test_a_single_sample_is_refused():
    policy, reward = stop_world()
    with pytest.raises(ValueError, match="RAFT: the decoder Sample draws 1 sample per prompt"):
        RAFT().check(ToySampler(policy, Sample(), reward))

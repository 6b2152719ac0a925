from dataclasses import replace

import pytest
import torch

from lrl_core.scoring import judge
from lrl_core.testing.parts import toy_experience
from lrl_core.testing.toy import ToySampler, tree_world
from lrl_core.types import Experience
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.rewards.kl_penalty import KLPenalty, adapted_coefficient

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


def episodes(shift=0.1):
    rollout = toy_experience().rollout
    return replace(rollout, reference_logprobs=torch.where(rollout.action_mask, rollout.logprobs - shift, 0))


@pytest.mark.parametrize(
    ("estimator", "mean"), [("k1", 0.033762106), ("k2", 0.030666660), ("k3", 0.033762106)], ids=["k1", "k2", "k3"]
)
def test_the_expected_penalty_is_the_coefficient_times_the_divergence(estimator, mean):
    """Four episodes of one token each, one per outcome, weighted by their probabilities."""
    rollout = toy_experience().rollout
    one = rollout.select(torch.arange(4))
    mask = torch.zeros_like(one.action_mask)
    mask[:, 0] = True
    drawn, reference = torch.zeros(2, *mask.shape, dtype=torch.float64)
    drawn[:, 0], reference[:, 0] = P.log(), Q.log()
    one = replace(one, action_mask=mask, logprobs=drawn, reference_logprobs=reference)
    signal = judge(KLPenalty(0.5, estimator), one)
    assert float((P * signal.total).sum()) == pytest.approx(-0.5 * mean, abs=1e-8)


def test_only_chosen_tokens_pay():
    signal = judge(KLPenalty(2.0), episodes(0.1))
    chosen = episodes().action_mask
    assert torch.allclose(signal.by_token[chosen], torch.tensor(-0.2, dtype=torch.float64))
    assert bool((signal.by_token[~chosen] == 0).all())
    assert torch.allclose(signal.total, -0.2 * chosen.sum(1).double())


def test_the_adaptive_coefficient_follows_ziegler():
    coefficient = 0.15
    seen = []
    for kl in (3, 6, 12, 6.6):
        coefficient = adapted_coefficient(coefficient, kl, target=6, episodes=512, horizon=10_000)
        seen.append(coefficient)
    assert seen == pytest.approx([0.148464, 0.148464, 0.149984271, 0.150752192], abs=1e-8)


def test_the_coefficient_moves_once_a_step_and_is_saved():
    rollout = episodes(1.0)
    kl = rollout.action_mask.sum().item() / len(rollout)
    penalty = KLPenalty(0.1, target=kl / 2, horizon=100)
    penalty.score(rollout)
    assert float(penalty.coefficient) == pytest.approx(0.1)
    experience = replace(toy_experience(), rollout=rollout)
    penalty.learned(experience)
    assert float(penalty.coefficient) == pytest.approx(0.1 * (1 + 0.2 * 4 / 100))
    penalty.learned(Experience(expert=experience.expert))
    resumed = KLPenalty(0.1, target=1.0)
    resumed.load_state_dict(penalty.state_dict())
    assert float(resumed.coefficient) == float(penalty.coefficient) == pytest.approx(0.1008)


def test_a_recipe_without_reference_is_refused():
    policy, reward = tree_world()
    with pytest.raises(ValueError, match=r"names no reference policy.*model\.reference"):
        KLPenalty().check(ToySampler(policy, Sample(), reward))
    with pytest.raises(Exception, match="no reference log-probabilities"):
        judge(KLPenalty(), toy_experience().rollout)


@pytest.mark.parametrize("bad", [{"coefficient": -1.0}, {"target": 0.0}, {"horizon": 0.0}])
def test_impossible_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="KLPenalty: got coefficient"):
        KLPenalty(**bad)

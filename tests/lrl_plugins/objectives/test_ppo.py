"""Clipped policy gradients: exact expectations at the first update, hand-made slopes at the later ones."""

import math
from dataclasses import replace

import pytest
import torch

from lrl_core.reference import Reference
from lrl_core.sampling import Sampling
from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import ValuedTable, bigram_world, check_objective, full_experience
from lrl_core.testing.toy import (
    TREE_GRADIENT,
    TablePolicy,
    TableReward,
    ToySampler,
    ToyTokenizer,
    every_episode,
    stop_world,
    toy_facts,
    toy_prompts,
    tree_world,
)
from lrl_core.types import Advantage, Experience, RewardSignal, Rollout
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.ppo import PPO
from lrl_plugins.objectives.ratios import clipped_loss, importance_ratio
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.objectives.shared import value_loss

SUM = "seq-mean-token-sum"
GSPO = {"ratio": "sequence-mean", "aggregation": "seq-mean-token-mean"}
RLOO = {"ratio": "sequence-sum", "aggregation": "seq-mean-token-sum"}
CISPO = {"form": "cispo", "clip_low": None, "cap": 5.0}
EVERYTHING = {"entropy_bonus": 0.1, "value_weight": 0.5, "value_clip": 0.2, "kl_weight": 0.3, "dual_clip": 3.0}


@pytest.mark.parametrize("arguments", [{}, GSPO, RLOO, CISPO, EVERYTHING, {"kl_weight": 0.3, "kl_estimator": "k2"}])
def test_conforms(arguments):
    check_objective(lambda: PPO(**arguments))


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"])
def test_conforms_in_every_aggregation(mode):
    check_objective(lambda: PPO(aggregation=mode, length=7))


# At the first update


@pytest.mark.parametrize(
    ("arguments", "scale"),
    [
        ({"aggregation": "seq-mean-token-sum"}, 1),
        (RLOO, 1),
        (CISPO | {"aggregation": "seq-mean-token-sum"}, 1),
        (GSPO, 0.5),
    ],
    ids=["token", "sequence-sum", "cispo", "sequence-mean"],
)
def test_at_the_old_policy_it_is_the_policy_gradient(arguments, scale):
    policy, reward = tree_world()
    sampler = ToySampler(policy, Greedy(), reward)
    mean, _ = gradient_moments(policy, reward, Constant(), PPO(**arguments), sampler, samples=1)
    assert torch.allclose(mean, -scale * torch.tensor(TREE_GRADIENT, dtype=torch.float64), atol=2e-6)


def test_at_the_old_policy_each_batch_has_reinforces_gradient():
    policy, _ = bigram_world()
    experience = full_experience()
    for mode in ("token-mean", "seq-mean-token-sum"):
        mine = PPO(aggregation=mode).loss(policy, experience).total
        theirs = Reinforce(aggregation=mode).loss(policy, experience).total
        first, second = (torch.autograd.grad(total, policy.table)[0] for total in (mine, theirs))
        assert torch.allclose(first, second, atol=1e-12)


def stop_gradient(mode, reward=None):
    policy, pays = stop_world()
    objective, sampler = PPO(aggregation=mode, length=2), ToySampler(policy, Greedy(), pays)
    mean, _ = gradient_moments(policy, reward or pays, Constant(), objective, sampler, 1)
    return -mean[0, 0].item()


@pytest.mark.parametrize(
    ("mode", "slope", "slope_of_one"),
    [
        ("seq-mean-token-sum", 0.312, 0),
        ("seq-mean-token-sum-norm", 0.156, 0),
        ("seq-mean-token-mean", 0.036, -0.12),
        ("token-mean", 0.036, -0.12),  # one episode at a time
    ],
)
def test_aggregation_decides_the_length_bias(mode, slope, slope_of_one):
    assert stop_gradient(mode) == pytest.approx(slope, abs=1e-9)
    assert stop_gradient(mode, TableReward(lambda tokens: 1.0)) == pytest.approx(slope_of_one, abs=1e-9)


# At later updates

SLOPES = {(0.7, 1): -0.7, (1.0, 1): -1.0, (1.3, 1): 0.0, (0.7, -1): 0.0, (1.0, -1): 1.0, (1.3, -1): 1.3}
"""d loss / d log pi by ratio and advantage, at clips of 0.2 (Schulman 2017, figure 1)."""


@pytest.mark.parametrize(("ratio", "advantage"), SLOPES)
def test_slopes_by_finite_differences(ratio, advantage):
    def loss(logprob):
        ratio = importance_ratio(logprob, torch.zeros(1, 1).double(), torch.ones(1, 1, dtype=torch.bool), "token")
        return clipped_loss(ratio, torch.full((1, 1), float(advantage)).double(), 0.8, 1.2).item()

    at, step = torch.full((1, 1), math.log(ratio), dtype=torch.float64), 1e-5
    slope = (loss(at + step) - loss(at - step)) / (2 * step)
    assert slope == pytest.approx(SLOPES[ratio, advantage], abs=1e-6)


def one_token(ratio, advantage, **arguments):
    """Loss and its slope by log pi for one token whose ratio and advantage are given, through the whole objective."""
    policy = TablePolicy([[0.0, 0.0]])
    logprobs = torch.full((1, 1), math.log(0.5) - math.log(ratio), dtype=torch.float64)
    experience = single(policy, torch.tensor([[0]]), logprobs, torch.tensor([[float(advantage)]]))
    loss = PPO(**arguments).loss(policy, experience).total
    gradient = torch.autograd.grad(loss, policy.table)[0]
    return loss.item(), gradient[0, 0].item() / 0.5  # d log pi(0) / d logit 0 is 1 - 0.5


def single(policy, tokens, logprobs, advantage):
    """One group of episodes without padding."""
    count, steps = tokens.shape
    rollout = Rollout(
        prompts=toy_prompts(count),
        tokens=tokens,
        lengths=torch.full((count,), steps),
        action_mask=torch.ones(count, steps, dtype=torch.bool),
        logprobs=logprobs,
        terminated=torch.ones(count, dtype=torch.bool),
        sampling=Sampling(),
    )
    return Experience(rollout, RewardSignal(torch.zeros(count).double()), Advantage(advantage.double()))


@pytest.mark.parametrize(("ratio", "advantage"), SLOPES)
def test_slopes_through_the_policy(ratio, advantage):
    assert one_token(ratio, advantage)[1] == pytest.approx(SLOPES[ratio, advantage], abs=1e-9)


def test_asymmetric_clips():
    assert one_token(1.25, 1, clip_high=0.28)[1] == pytest.approx(-1.25)
    assert one_token(1.25, 1, clip_high=0.2)[1] == 0
    assert one_token(0.75, -1, clip_low=0.3)[1] == pytest.approx(0.75)
    assert one_token(9.0, 1, clip_high=None)[1] == pytest.approx(-9)
    assert one_token(0.1, -1, clip_low=None)[1] == pytest.approx(0.1)


def test_dual_clip_bounds_the_loss_of_bad_tokens():
    assert one_token(5.0, -1)[0] == pytest.approx(5)
    assert one_token(5.0, -1, dual_clip=3.0) == pytest.approx((3, 0))
    assert one_token(2.0, -1, dual_clip=3.0) == pytest.approx((2, 2))
    assert one_token(5.0, 1, dual_clip=3.0, clip_high=None)[1] == pytest.approx(-5)


@pytest.mark.parametrize(
    ("ratio", "arguments", "weight"),
    [
        (9.0, {"cap": 5.0, "clip_low": None}, 5.0),  # the cap itself
        (9.0, {"clip_high": 0.28}, 1.28),  # 1 + clip_high
        (0.1, {"clip_low": 0.2}, 0.8),
        (0.1, {"clip_low": None}, 0.1),
        (1.1, {}, 1.1),
    ],
)
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_cispo_caps_the_weight_and_keeps_the_gradient(ratio, advantage, arguments, weight):
    assert one_token(ratio, advantage, form="cispo", **arguments)[1] == pytest.approx(-weight * advantage)


def moved():
    """A policy that has moved since it drew: episodes of one to four tokens with their old log-probabilities."""
    policy, _ = bigram_world()
    experience = full_experience()
    noise = torch.randn(4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64) / 5
    old = torch.where(experience.rollout.action_mask, experience.rollout.logprobs + noise, 0)
    value = torch.where(experience.learn_mask, torch.tensor([[1.0], [0.0], [-2.0], [0.7]]).double(), 0)
    changed = replace(experience, rollout=replace(experience.rollout, logprobs=old), advantage=Advantage(value))
    return policy, changed, old, value[:, -1:].squeeze(1), experience.learn_mask


@pytest.mark.parametrize(("arguments", "mean"), [(GSPO, True), (RLOO, False)])
def test_ratios_of_episodes_have_the_gradient_of_their_own_objective(arguments, mean):
    """Against min(s A, clip(s) A), differentiated through the ratio s of the whole episode."""
    policy, experience, old, _, mask = moved()
    got = torch.autograd.grad(
        PPO(clip_low=0.05, clip_high=0.05, **arguments).loss(policy, experience).total, policy.table
    )
    change = torch.where(mask, policy(experience.rollout).logprobs - old, 0).sum(1)
    ratio = (change / mask.sum(1).clamp(min=1) if mean else change).exp()
    advantage = experience.advantage.value.sum(1) / mask.sum(1).clamp(min=1)
    direct = -torch.minimum(ratio * advantage, ratio.clamp(0.95, 1.05) * advantage).sum()
    assert ((ratio - 1).abs() > 0.05)[mask.any(1)].any()
    assert torch.allclose(got[0], torch.autograd.grad(direct, policy.table)[0], atol=1e-12)


def test_the_mean_ratio_does_not_depend_on_the_length():
    old, mask = torch.zeros(2, 4), torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    logprobs = torch.full((2, 4), 0.1)
    assert importance_ratio(logprobs, old, mask, "sequence-mean")[:, 0].tolist() == pytest.approx([math.exp(0.1)] * 2)
    product = importance_ratio(logprobs, old, mask, "sequence-sum")[:, 0]
    assert product.tolist() == pytest.approx([math.exp(0.4), math.exp(0.2)])


@pytest.mark.parametrize("level", ["token", "sequence-mean", "sequence-sum"])
def test_ratios_stay_finite(level):
    far = torch.full((1, 3), 300.0, requires_grad=True)
    ratio = importance_ratio(far, torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), level)
    ratio.sum().backward()
    assert ratio.detach().log().tolist() == [pytest.approx([20.0] * 3)]
    assert far.grad.isfinite().all()


# Entropy, values, the reference


@pytest.mark.parametrize(
    ("estimator", "gradient"),
    [
        ("k2", [0.094691, -0.010129, -0.048217, -0.036345]),
        ("k3", [0.1, 0, -0.05, -0.05]),
        ("k3+", [0.094691, -0.010129, -0.048217, -0.036345]),
    ],
)
def test_divergence_from_the_reference_has_its_estimators_gradient(estimator, gradient):
    p, q = [0.5, 0.3, 0.15, 0.05], torch.tensor([[0.4], [0.3], [0.2], [0.1]], dtype=torch.float64)
    policy = TablePolicy([[math.log(x) for x in p]])
    rollout, probability = every_episode(policy, 1)
    rollout = replace(rollout, reference_logprobs=q.log())
    objective, mean = PPO(kl_weight=2.0, kl_estimator=estimator), torch.zeros(4, dtype=torch.float64)
    for row in range(4):
        one = rollout.select(torch.tensor([row]))
        experience = Experience(one, RewardSignal(torch.zeros(1).double()), Advantage(torch.zeros(1, 1).double()))
        mean += probability[row] * torch.autograd.grad(objective.loss(policy, experience).total, policy.table)[0][0]
    assert mean.tolist() == pytest.approx([2 * x for x in gradient], abs=2e-6)


def test_entropy_is_rewarded():
    policy, _ = bigram_world()
    experience = full_experience()
    output = policy(experience.rollout)
    entropy = torch.where(experience.learn_mask, output.entropy, 0).sum()
    got = PPO().loss(policy, experience).total - PPO(entropy_bonus=0.7).loss(policy, experience).total
    gradient = torch.autograd.grad(got, policy.table)[0]
    assert torch.allclose(gradient, 0.7 * torch.autograd.grad(entropy, policy.table)[0], atol=1e-9)


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss"),
    [(1.0, 0.5, 0.0, None, 0.5), (1.0, 0.5, 0.0, 0.2, 0.5), (0.6, 1.0, 0.0, 0.2, 0.32), (0.6, 0.5, 0.0, 0.2, 0.18)],
)
def test_value_loss_by_hand(value, old, target, clip, loss):
    policy, _ = bigram_world()
    output = policy(full_experience().rollout)
    output.values = torch.full((4, 4), value)
    numbers = Advantage(torch.zeros(4, 4), torch.full((4, 4), target), torch.full((4, 4), old))
    assert value_loss("PPO", output, numbers, clip)[0, 0].item() == pytest.approx(loss)


def test_the_value_loss_has_a_count_of_its_own():
    policy = ValuedTable(bigram_world()[0].table.detach(), eos=3)
    experience = full_experience()
    objective = PPO(value_weight=0.5, aggregation="seq-mean-token-sum")
    assert objective.count(experience).tolist() == [3, 10]
    loss = objective.loss(policy, experience)
    error = torch.where(experience.learn_mask, policy(experience.rollout).values - experience.advantage.target, 0)
    assert loss.total[1].item() == pytest.approx(0.5 * error.square().sum().item() / 2)
    assert loss.metrics["value_loss"].item() == pytest.approx(error.square().sum().item() / 20)


@pytest.mark.parametrize("arguments", [EVERYTHING, GSPO, RLOO, CISPO])
def test_what_stands_off_the_mask_changes_nothing(arguments):
    policy = ValuedTable(bigram_world()[0].table.detach(), eos=3)
    experience = full_experience()
    off = ~experience.rollout.action_mask

    def disturbed(line):
        return torch.where(off, torch.full_like(line, 1e3), line)

    rollout, advantage = experience.rollout, experience.advantage
    other = replace(
        experience,
        rollout=replace(
            rollout,
            logprobs=disturbed(rollout.logprobs),
            reference_logprobs=disturbed(rollout.reference_logprobs),
        ),
        advantage=Advantage(*(disturbed(x) for x in (advantage.value, advantage.target, advantage.values))),
    )
    first, second = (PPO(**arguments).loss(policy, which) for which in (experience, other))
    assert first.total.tolist() == pytest.approx(second.total.tolist(), abs=1e-12)
    gradients = [torch.autograd.grad(loss.total.sum(), policy.table)[0] for loss in (first, second)]
    assert torch.allclose(*gradients, atol=1e-12)
    assert {k: float(v) for k, v in first.metrics.items()} == pytest.approx(
        {k: float(v) for k, v in second.metrics.items()}
    )


# What is logged


def test_metrics():
    policy, experience, old, _, mask = moved()
    metrics = PPO(clip_low=0.02, clip_high=0.02).loss(policy, experience).metrics
    ratio = (policy(experience.rollout).logprobs.detach() - old).exp()[mask]
    advantage = experience.advantage.value[mask]
    assert metrics["ratio/first"].item() == pytest.approx(ratio.mean().item())
    assert metrics["ratio/first_error"].item() == pytest.approx((ratio - 1).abs().max().item())
    low, high = (ratio < 0.98) & (advantage < 0), (ratio > 1.02) & (advantage > 0)
    assert low.any()
    assert high.any()
    assert metrics["clip/low"].item() == pytest.approx(low.double().mean().item())
    assert metrics["clip/high"].item() == pytest.approx(high.double().mean().item())
    assert metrics["kl/update"].item() == pytest.approx((ratio - 1 - ratio.log()).mean().item())
    # the toy reference is 0.2 nats less sure of every token: 10 tokens in 3 judged episodes
    assert metrics["kl/reference"].item() == pytest.approx(0.2 * 10 / 3)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kl_weight": 0.1, "kl_estimator": "k1"}, "expected gradient is 0"),
        ({"kl_weight": -1.0}, "kl_weight is -1.0"),
        ({"ratio": "sequence-mean"}, "aggregation is token-mean with ratio sequence-mean.*seq-mean-token-mean"),
        ({"ratio": "sequence-sum", "aggregation": "seq-mean-token-mean"}, "Expected seq-mean-token-sum or"),
        ({"aggregation": "seq-mean-token-sum-norm"}, "constant length"),
        ({"clip_low": 1.5}, "clip_low is 1.5"),
        ({"clip_high": 0.0}, "clip_high is 0.0"),
        ({"dual_clip": 1.0}, "dual_clip is 1.0; expected a number > 1"),
        ({"form": "cispo", "dual_clip": 3.0}, "dual_clip is 3.0 with form cispo"),
        ({"cap": 5.0}, "cap is 5.0 with form clip"),
        ({"value_clip": 0.0}, "value_clip is 0.0"),
    ],
)
def test_arguments_that_are_known_to_be_wrong_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        PPO(**arguments)


def test_parts_that_are_missing_are_refused_when_the_recipe_is_read():
    policy, reward = stop_world()
    sampler = ToySampler(policy, Sample(), reward)
    facts = toy_facts(ToyTokenizer(2))

    def check(**arguments):
        objective = PPO(**arguments)
        objective.bind(facts)
        objective.check(sampler)

    check()
    with pytest.raises(ValueError, match="names no reference policy"):
        check(kl_weight=0.1)
    sampler.reference = Reference()
    check(kl_weight=0.1)
    with pytest.raises(ValueError, match="TablePolicy has no value head"):
        check(value_weight=0.1)
    sampler.policy = ValuedTable(policy.table.detach(), eos=1)
    check(value_weight=0.1)
    sampler.decoder = Greedy()
    with pytest.raises(ValueError, match="Greedy are no draws"):
        check()


def test_what_is_missing_in_a_batch_is_named():
    policy = ValuedTable(bigram_world()[0].table.detach(), eos=3)
    experience = full_experience()
    bare = replace(
        experience,
        rollout=replace(experience.rollout, reference_logprobs=None),
        advantage=Advantage(experience.advantage.value),
    )
    with pytest.raises(ValueError, match="carry no reference_logprobs"):
        PPO(kl_weight=0.1).loss(policy, bare)
    with pytest.raises(ValueError, match="the baseline gave no targets"):
        PPO(value_weight=0.1).loss(policy, bare)
    with pytest.raises(ValueError, match="the policy gave no values"):
        PPO(value_weight=0.1).loss(bigram_world()[0], experience)
    unclipped = replace(bare, advantage=replace(experience.advantage, values=None))
    with pytest.raises(ValueError, match=r"value_clip is 0\.2"):
        PPO(value_weight=0.1, value_clip=0.2).loss(policy, unclipped)

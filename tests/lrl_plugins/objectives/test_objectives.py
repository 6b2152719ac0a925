import pytest
import torch

from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import bigram_world, check_objective, toy_experience
from lrl_core.testing.toy import TablePolicy, TableReward, ToySampler, stop_world
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.decoders.sample import Greedy
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.objectives.sum import Sum

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


def both():
    return Sum({"rl": Reinforce(), "ml": CrossEntropy()}, {"ml": 0.1})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [Reinforce, CrossEntropy])
def test_conforms_in_every_aggregation(kind, mode):
    check_objective(lambda: kind(aggregation=mode, length=7))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reinforce(entropy_bonus=0.1),
        lambda: Reinforce(entropy_bonus=0.1, entropy="sampled"),
        lambda: CrossEntropy(label_smoothing=0.1),
        both,
    ],
    ids=["entropy", "sampled-entropy", "smoothing", "sum"],
)
def test_conforms(make):
    check_objective(make)


def stop_gradient(mode, reward=None):
    policy, pays = stop_world()
    mean, _ = gradient_moments(
        policy, reward or pays, Constant(), Reinforce(aggregation=mode, length=2), ToySampler(policy, Greedy(), pays), 1
    )
    return -mean[0, 0].item()  # the gradient of J with respect to the logit of a


def test_aggregation_decides_the_length_bias():
    assert stop_gradient("seq-mean-token-sum") == pytest.approx(0.312, abs=1e-9)
    assert stop_gradient("seq-mean-token-mean") == pytest.approx(0.036, abs=1e-9)
    assert stop_gradient("seq-mean-token-sum-norm") == pytest.approx(0.312 / 2, abs=1e-9)


def test_a_constant_reward_teaches_nothing_unless_divided_by_the_length():
    one = TableReward(lambda tokens: 1.0)
    assert stop_gradient("seq-mean-token-sum", one) == pytest.approx(0, abs=1e-12)
    assert stop_gradient("seq-mean-token-mean", one) == pytest.approx(-0.12, abs=1e-9)


@pytest.mark.parametrize(
    ("mode", "stop"), [("seq-mean-token-mean", 0.693147), ("seq-mean-token-sum", 0.5), ("token-mean", 0.5)]
)
def test_only_proper_aggregations_find_the_stop_probability(mode, stop):
    """Geometric lengths with stop probability 1/2: the per-sequence token mean is minimised elsewhere, at ln 2."""
    length = 24
    policy = TablePolicy([[0.0, 0.0]], eos=1)
    tokens = torch.tensor([[0] * n + [1] + [0] * (length - n - 1) for n in range(length)])
    lengths = torch.arange(1, length + 1)
    weight = 0.5 ** lengths.double()
    mask = torch.arange(length) < lengths[:, None]

    def expected_loss(logit):
        table = torch.stack([torch.zeros_like(logit), logit]).log_softmax(0)
        losses = torch.where(mask, -torch.where(tokens == 1, table[1], table[0]), 0)
        if mode == "seq-mean-token-mean":
            return (weight * losses.sum(1) / lengths).sum()
        return (weight * losses.sum(1)).sum() / ((weight * lengths).sum() if mode == "token-mean" else 1)

    # the same minimum must come out of the objective's own gradient, weighted by the episodes' probabilities
    experience = toy_experience()
    gradient = torch.zeros(2, dtype=torch.float64)
    policy.table.data[0, 1] = torch.tensor(stop / (1 - stop)).log()
    from dataclasses import replace

    from lrl_core.testing.toy import toy_prompts
    from lrl_core.types import Experience

    for row in range(length):
        rollout = replace(
            experience.expert,
            prompts=toy_prompts(),
            tokens=tokens[row : row + 1],
            lengths=lengths[row : row + 1],
            action_mask=mask[row : row + 1],
            logprobs=torch.zeros(1, length),
            terminated=torch.tensor([True]),
            texts=None,
        )
        policy.zero_grad()
        CrossEntropy(aggregation=mode).loss(policy, Experience(expert=rollout)).total.backward()
        gradient += weight[row] * policy.table.grad[0]
    assert gradient.abs().max() < 1e-5
    assert expected_loss(torch.tensor(1.0)).isfinite()


def test_label_smoothing_by_hand():
    policy, _ = bigram_world()
    experience = toy_experience()
    loss = CrossEntropy(label_smoothing=0.3).loss(policy, experience).total
    answers = experience.expert
    expected = 0.0
    for row in range(len(answers)):
        line = 0
        for t in range(int(answers.lengths[row])):
            logprobs = policy.table[line].log_softmax(0)
            target = torch.full((4,), 0.3 / 3, dtype=torch.float64)
            target[answers.tokens[row, t]] = 0.7
            expected -= (target * logprobs).sum().item()
            line = int(answers.tokens[row, t]) + 1
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_analytic_entropy_gradient_is_that_of_the_entropy():
    policy, _ = bigram_world()
    experience = toy_experience()
    with_bonus = Reinforce(entropy_bonus=0.7).loss(policy, experience).total
    without = Reinforce().loss(policy, experience).total
    output = policy(experience.rollout)
    entropy = torch.where(experience.learn_mask, output.entropy, 0).sum()
    got = torch.autograd.grad(without - with_bonus, policy.table, retain_graph=True)[0]
    assert torch.allclose(got, 0.7 * torch.autograd.grad(entropy, policy.table)[0], atol=1e-9)


def test_sum_keeps_each_denominator():
    policy, _ = bigram_world()
    experience = toy_experience()
    objective = both()
    assert objective.count(experience).tolist() == [3.0, 7.0]
    total = objective.loss(policy, experience).total
    assert total[0].item() == pytest.approx(Reinforce().loss(policy, experience).total.item())
    assert total[1].item() == pytest.approx(0.1 * CrossEntropy().loss(policy, experience).total.item())


def test_reinforce_refuses_a_decoder_that_does_not_draw():
    policy, reward = stop_world()
    with pytest.raises(ValueError, match="Greedy are no draws"):
        Reinforce().check(ToySampler(policy, Greedy(), reward))


def test_missing_length_is_refused_when_the_recipe_is_read():
    with pytest.raises(ValueError, match="constant length"):
        Reinforce(aggregation="seq-mean-token-sum-norm")


def test_missing_human_answers_are_named():
    experience = toy_experience()
    with pytest.raises(ValueError, match="no human answers"):
        CrossEntropy().count(type(experience)(experience.rollout, experience.reward, experience.advantage))


def test_sum_refuses_weights_of_no_term():
    with pytest.raises(ValueError, match="nosuch"):
        Sum({"rl": Reinforce()}, {"nosuch": 1.0})

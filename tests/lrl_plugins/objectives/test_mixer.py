"""Cross-entropy on the opening, policy gradient after it: exact in a world whose episodes can be listed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.parts import ValuedTable, bigram_world, check_objective, toy_experience
from lrl_core.testing.toy import (
    TREE_GRADIENT,
    TREE_REWARD,
    TREE_TABLE,
    TablePolicy,
    ToySampler,
    ToyTokenizer,
    every_episode,
    stop_world,
    toy_facts,
    tree_world,
)
from lrl_core.types import Advantage, Experience
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.mixer import MIXER, opening


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"])
def test_conforms(mode):
    check_objective(lambda: MIXER(aggregation=mode, length=7))


def test_conforms_with_values():
    check_objective(lambda: MIXER(value_weight=0.01))


def forced(experience, tokens):
    """The same episodes whose first tokens were fed, not chosen."""
    rollout = experience.rollout
    chosen = rollout.action_mask & (torch.arange(rollout.tokens.shape[1]) >= tokens)
    logprobs = torch.where(chosen, rollout.logprobs, 0)
    value = torch.where(chosen, experience.advantage.value, 0)
    return replace(
        experience, rollout=replace(rollout, action_mask=chosen, logprobs=logprobs), advantage=Advantage(value)
    )


def tree_experience():
    """Each of the nine episodes once, with its reward as advantage, and its probability."""
    policy, reward = tree_world()
    rollout, probability = every_episode(policy, 2)
    signal = reward.score(rollout)
    return policy, Experience(rollout, signal, Advantage(signal.total[:, None].expand(9, 2).clone())), probability


@pytest.mark.parametrize("w", [0.0, 0.5])
def test_without_an_opening_it_is_the_policy_gradient(w):
    policy, reward = tree_world()
    sampler = ToySampler(policy, Greedy(), reward)
    mean, _ = gradient_moments(policy, reward, Constant(), MIXER(w), sampler, samples=1)
    assert torch.allclose(mean, -(1 - w) * torch.tensor(TREE_GRADIENT, dtype=torch.float64), atol=2e-6)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_forced_throughout_it_is_maximum_likelihood(mode):
    policy, _ = bigram_world()
    experience = toy_experience()
    lined = replace(experience.expert, sampling=experience.rollout.sampling)
    signal = experience.reward.select(torch.tensor([0, 2]))
    advantage = experience.advantage.select(torch.tensor([0, 2]))
    played = forced(Experience(lined, signal, advantage, experience.expert), 9)
    mixer, entropy = MIXER(1.0, aggregation=mode), CrossEntropy(aggregation=mode)
    assert mixer.count(played).item() == entropy.count(played).item()
    mine, theirs = (torch.autograd.grad(x.loss(policy, played).total, policy.table)[0] for x in (mixer, entropy))
    assert torch.allclose(mine, theirs, atol=1e-12)
    assert mine.abs().max() > 0.1


@pytest.mark.parametrize("first", [0, 1, 2])
def test_after_a_given_opening_the_suffix_has_its_exact_conditional_gradient(first):
    policy, experience, _ = tree_experience()
    w, got = 0.3, torch.zeros(4, 3, dtype=torch.float64)
    second = torch.tensor(TREE_TABLE[1 + first], dtype=torch.float64).softmax(0)
    for token in range(3):
        row = (experience.rollout.tokens == torch.tensor([first, token])).all(1).nonzero().squeeze(1)
        one = Experience(
            experience.rollout.select(row), experience.reward.select(row), experience.advantage.select(row)
        )
        loss = MIXER(w).loss(policy, forced(one, 1)).total
        got += second[token] * torch.autograd.grad(loss, policy.table)[0]
    table = torch.tensor(TREE_TABLE, dtype=torch.float64, requires_grad=True)
    worth = (table[1 + first].softmax(0) * torch.tensor(TREE_REWARD, dtype=torch.float64)[first]).sum()
    exact = -w * table[0].log_softmax(0)[first] - (1 - w) * worth
    assert torch.allclose(got, torch.autograd.grad(exact, table)[0], atol=1e-12)


def test_no_read_is_one_of_human_answers():
    """Those are read in train mode, which would move the statistics of normalising layers between the two reads."""
    policy, experience, _ = tree_experience()
    read = []

    def reader(rollout):
        read.append(rollout.sampling)
        return policy(rollout)

    MIXER().loss(reader, forced(experience, 1))
    assert len(read) == 2
    assert None not in read


def test_a_token_weighs_the_same_however_long_the_opening_is():
    """Both parts are divided by all taught tokens: the weight of the second token is the same, forced or not."""
    _, experience, _ = tree_experience()
    counts = {tokens: MIXER(aggregation="token-mean").count(forced(experience, tokens)).item() for tokens in (0, 1, 2)}
    assert counts == {0: 18, 1: 18, 2: 18}


def test_the_opening_ends_with_the_first_choice():
    experience = toy_experience()  # the second token of the first episode is an environment's word
    assert not opening(experience).any()
    assert opening(forced(experience, 1)).long().tolist() == [[1, 1, 0, 0], [0] * 4, [1, 0, 0, 0], [1, 0, 0, 0]]
    assert opening(forced(experience, 9)).sum(1).tolist() == [4, 0, 3, 4]  # to the end, unjudged episodes left out


class TwoParts(TablePolicy):
    """A table policy whose value head has weights of its own."""

    def __init__(self, table):
        super().__init__(table)
        self.worth = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, rollout):
        output = super().forward(rollout)
        output.values = output.estimate(lambda hidden: hidden.detach() @ self.worth)
        return output


def test_the_baselines_gradient_does_not_reach_the_decoder():
    _, experience, _ = tree_experience()
    policy = TwoParts(TREE_TABLE)
    advantage = Advantage(experience.advantage.value, target=experience.advantage.value)
    valued = replace(experience, advantage=advantage)
    plain = torch.autograd.grad(MIXER().loss(policy, valued).total, policy.table)[0]
    total = MIXER(value_weight=0.01).loss(policy, valued).total.sum()
    table, worth = torch.autograd.grad(total, [policy.table, policy.worth])
    assert torch.equal(table, plain)
    # the worth of the first state is pulled towards the mean of the nine rewards, at one hundredth of the error
    assert worth[0].item() == pytest.approx(-0.01 * experience.reward.total.sum().item())


def test_parts_that_do_not_fit_are_refused():
    policy, reward = stop_world()
    objective = MIXER(value_weight=0.01)
    objective.bind(toy_facts(ToyTokenizer(2)))
    with pytest.raises(ValueError, match="Greedy are no draws"):
        objective.check(ToySampler(policy, Greedy(), reward))
    with pytest.raises(ValueError, match="TablePolicy has no value head"):
        objective.check(ToySampler(policy, Sample(), reward))
    objective.check(ToySampler(ValuedTable(policy.table.detach()), Sample(), reward))
    with pytest.raises(ValueError, match=r"w is 1\.5"):
        MIXER(1.5)

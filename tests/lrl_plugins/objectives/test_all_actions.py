"""The gradient summed over all actions: by hand, as a sum, without what may not teach, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.testing.parts import EOS, bigram_world, toy_experience
from lrl_core.testing.toy import ToySampler, ToyTokenizer, toy_facts
from lrl_core.types import ActionValues, Experience
from lrl_core.vocab import Head
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.all_actions import AllActions
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.sum import Sum


def valued(experience=None):
    """An experience whose critic has a random value for every action."""
    experience = experience or toy_experience()
    generator = torch.Generator().manual_seed(3)
    rows, steps = experience.rollout.tokens.shape
    hidden = torch.randn(rows, steps, 5, generator=generator).double()
    head = Head(torch.randn(4, 5, generator=generator).double(), torch.randn(4, generator=generator).double())
    return replace(experience, advantage=replace(experience.advantage, actions=ActionValues(hidden, head)))


def gradient(objective, experience):
    policy, _ = bigram_world()
    objective.loss(policy, experience).total.sum().backward()
    return policy.table.grad


def by_hand(experience, entropy_bonus=0.0):
    """The same with all values and probabilities laid out."""
    policy, _ = bigram_world()
    rollout, actions = experience.rollout, experience.advantage.actions
    total = torch.zeros(())
    for row, step in experience.learn_mask.nonzero().tolist():
        line = policy.table[0 if step == 0 else 1 + int(rollout.tokens[row, step - 1])]
        chances = line.softmax(0)
        total = total - (chances * (actions.head.weight @ actions.hidden[row, step] + actions.head.bias)).sum()
        total = total + entropy_bonus * (chances * line.log_softmax(0)).sum()
    total.backward()
    return total, policy.table.grad


@pytest.mark.parametrize("entropy_bonus", [0.0, 0.3])
def test_loss_and_gradient_by_hand(entropy_bonus):
    experience, objective = valued(), AllActions(entropy_bonus=entropy_bonus)
    total, expected = by_hand(experience, entropy_bonus)
    loss = objective.loss(bigram_world()[0], experience)
    assert loss.total.item() == pytest.approx(total.item())
    assert torch.allclose(gradient(objective, experience), expected, atol=1e-9)
    assert ("entropy" in loss.metrics) == (entropy_bonus > 0)
    mean = loss.metrics["expected_value"].item() * int(experience.learn_mask.sum())
    assert mean == pytest.approx(-by_hand(experience)[0].item())


def test_no_gradient_reaches_the_critic():
    experience = valued()
    actions = experience.advantage.actions
    actions.hidden.requires_grad_()
    actions.head.weight.requires_grad_()
    gradient(AllActions(), experience)
    assert actions.hidden.grad is None
    assert actions.head.weight.grad is None


def test_the_token_that_was_drawn_matters_only_for_what_follows():
    """Another last token gives the same gradient: what was drawn is not reinforced."""
    experience = valued()
    tokens = experience.rollout.tokens.clone()
    tokens[3, 3] = 0
    other = replace(experience, rollout=replace(experience.rollout, tokens=tokens))
    assert torch.allclose(gradient(AllActions(), experience), gradient(AllActions(), other), atol=1e-12)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"])
def test_micro_batches_padding_and_unjudged_rows_change_nothing(mode):
    objective, experience = AllActions(mode, length=4), valued()
    whole = gradient(objective, experience)
    parts = experience.split(1)
    assert len(parts) == 2
    assert torch.allclose(sum(gradient(objective, part) for part in parts), whole, atol=1e-9)
    assert sum(objective.count(part) for part in parts) == objective.count(experience)
    unjudged = (~experience.reward.judged).nonzero().squeeze(1)
    tokens = experience.rollout.tokens.clone()
    tokens[unjudged] = (tokens[unjudged] + 1) % 3
    other = replace(experience, rollout=replace(experience.rollout, tokens=tokens))
    assert torch.allclose(gradient(objective, other), whole, atol=1e-12)


def test_likelihood_stands_beside_it_in_a_sum():
    experience = valued()
    both = Sum({"actor": AllActions(), "likelihood": CrossEntropy()}, {"likelihood": 0.1})
    expected = gradient(AllActions(), experience) + 0.1 * gradient(CrossEntropy(), experience)
    assert torch.allclose(gradient(both, experience), expected, atol=1e-9)
    assert both.count(experience).tolist() == [3, float(experience.expert.action_mask.sum())]


def test_a_baseline_without_action_values_is_refused():
    with pytest.raises(ValueError, match=r"says nothing of tokens that were not drawn.*Use the baseline Critic"):
        AllActions().loss(bigram_world()[0], toy_experience())


def test_episodes_that_are_no_draws_are_refused():
    policy, reward = bigram_world()
    for decoder, fails in ((Greedy(), True), (Sample(), False)):
        bind_all(decoder, toy_facts(ToyTokenizer(4, eos=EOS)))
        sampler = ToySampler(policy, decoder, reward)
        if fails:
            with pytest.raises(ValueError, match="AllActions: episodes of the decoder Greedy are no draws"):
                AllActions().check(sampler)
        else:
            AllActions().check(sampler)


def test_the_constant_length_is_asked_for():
    with pytest.raises(ValueError, match="constant length"):
        AllActions("seq-mean-token-sum-norm")


def test_parts_of_a_batch_keep_their_own_values():
    """Cut apart and put together again, every row meets its own states and the one matrix."""
    experience = valued()
    groups = dict.fromkeys(experience.rollout.prompts.group.tolist())
    again = Experience.cat([experience.of_groups({group}) for group in reversed(groups)])
    assert torch.allclose(gradient(AllActions(), again), gradient(AllActions(), experience), atol=1e-9)

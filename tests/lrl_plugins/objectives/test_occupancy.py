"""Rewards and values that logits imply, against sums over every line of small worlds."""

import math

import pytest
import torch

from lrl_core.backspace import kept
from lrl_core.testing.toy import TablePolicy, every_episode
from lrl_plugins.objectives.occupancy import STEEPEST, discounts, phi, steps

KINDS = ["chi2_mixture", "chi2", "kl", "js", "hellinger", "linear"]


def expected_drop(policy, length, discount):
    """(1 - gamma) E sum_t gamma^t (V(s) - gamma V(s')) over all lines, and (1 - gamma) V of the beginning."""
    rollout, probability = every_episode(policy, length)
    rollout.terminated.fill_(True)
    output = policy(rollout)
    mask, values = rollout.action_mask, output.log_z.detach()
    drop = steps(values, values, mask, rollout.terminated, discount).drop
    total = (probability[:, None] * discounts(mask, discount) * torch.where(mask, drop, 0)).sum()
    return (1 - discount) * total.item(), (1 - discount) * values[0, 0].item()


def test_value_differences_telescope_on_the_tree_of_two_letters_and_an_end():
    """The root's logits are log(.5, .2, .3) + 1.3629, so V is 1.3629 there; the other lines are random."""
    torch.manual_seed(0)
    table = torch.randn(4, 3, dtype=torch.float64)
    table[0] = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64).log() + 1.3629
    both = expected_drop(TablePolicy(table, eos=2), 2, 0.9)
    assert both == pytest.approx((0.136290, 0.136290), abs=1e-6)


@pytest.mark.parametrize("discount", [0.5, 0.9, 1.0])
def test_value_differences_telescope_along_every_line(discount):
    torch.manual_seed(1)
    rollout, _ = every_episode(TablePolicy(torch.randn(5, 4), eos=3), 4)
    values, mask = torch.randn(rollout.tokens.shape, dtype=torch.float64), rollout.action_mask
    drop = steps(values, values, mask, torch.ones(len(mask), dtype=torch.bool), discount).drop
    left = (discounts(mask, discount) * torch.where(mask, drop, 0)).sum(1)
    assert torch.allclose(left, values[:, 0], atol=1e-6)


def test_what_stands_off_the_mask_has_no_influence():
    mask = torch.tensor([[True, False, True, False], [True, True, False, False]])
    logits, values = torch.arange(8.0).view(2, 4), torch.arange(8.0).view(2, 4) * 10
    terminated = torch.tensor([True, True])
    first = steps(logits, values, mask, terminated, 0.5)
    assert first.reward[mask].tolist() == [0 - 0.5 * 20, 2, 4 - 0.5 * 50, 5]
    assert first.drop[mask].tolist() == [0 - 0.5 * 20, 20, 40 - 0.5 * 50, 50]
    other = steps(logits, torch.where(mask, values, 1e6), mask, terminated, 0.5)
    assert torch.equal(first.drop[mask], other.drop[mask])
    assert torch.equal(first.known, mask)


def test_the_last_choice_of_a_cut_line_is_unknown():
    mask = torch.tensor([[True, True, True, False], [True, True, True, False]])
    known = steps(mask.float(), mask.float(), mask, torch.tensor([False, True]), 1.0).known
    assert known.tolist() == [[True, True, False, False], [True, True, True, False]]


def test_a_planted_mistake_is_no_state_that_a_choice_leads_to():
    """a, w <backspace>, EOS with the mistake w off the mask: a leads to the state that EOS is chosen in."""
    mask = torch.tensor([[True, False, True, True]])
    values = torch.tensor([[1.0, 99.0, 7.0, 3.0]])
    planted = torch.tensor([[False, False, True, False]])
    drop = steps(values, values, mask, torch.tensor([True]), 0.5, planted).drop
    assert drop[mask].tolist() == [1 - 0.5 * 3, 7 - 0.5 * 3, 3]


def test_an_end_that_is_repeated_for_ever_is_worth_its_own_logit():
    """Its sum gamma^t r, with r = (1 - gamma) v, is v: as the closed form says."""
    mask = torch.ones(1, 3, dtype=torch.bool)
    logits, values = torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[3.0, 4.0, 99.0]])
    read = steps(logits, values, mask, torch.tensor([True]), 0.9, repeats=torch.tensor([True]))
    assert read.reward[0].tolist() == pytest.approx([1 - 0.9 * 4, 2 - 0.9 * 5, 0.5])
    assert read.drop[0].tolist() == pytest.approx([3 - 0.9 * 4, 4 - 0.9 * 5, 0.5])
    forever = sum(0.9**t * 0.5 for t in range(500))
    assert forever == pytest.approx(5.0)


def test_discounts_count_the_policys_own_choices():
    mask = torch.tensor([[True, False, True, True, False]])
    assert discounts(mask, 0.5).tolist() == [[1, 0, 0.5, 0.25, 0]]


SLOPES = {
    "chi2_mixture": lambda r: 1.0,
    "linear": lambda r: 1.0,
    "chi2": lambda r: 1 - r / (2 * 0.7),
    "kl": lambda r: math.exp(-r),
    "js": lambda r: math.exp(-r) / (2 - math.exp(-r)),
    "hellinger": lambda r: 1 / (1 + r) ** 2,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [-0.5, 0.0, 0.3, 2.0])
def test_slopes_of_phi_are_the_weights_of_iq_learn(kind, at):
    reward = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    phi(reward, kind, alpha=0.7).backward()
    assert reward.grad.item() == pytest.approx(SLOPES[kind](at), abs=1e-9)


@pytest.mark.parametrize(("kind", "value"), [("kl", -math.exp(-0.4)), ("js", math.log(2 - math.exp(-0.4)))])
def test_values_of_phi(kind, value):
    assert phi(torch.tensor(0.4), kind).item() == pytest.approx(value)
    assert phi(torch.tensor(0.4), "hellinger").item() == pytest.approx(0.4 / 1.4)
    assert phi(torch.tensor(0.4), "chi2", alpha=0.5).item() == pytest.approx(0.4 - 0.16 / 2)


@pytest.mark.parametrize("kind", ["kl", "js", "hellinger"])
def test_phi_goes_on_as_a_straight_line_where_it_would_overflow(kind):
    reward = torch.tensor([-1e4, -50.0, -5.0], dtype=torch.float64, requires_grad=True)
    low = phi(reward, kind)
    low.sum().backward()
    assert bool(low.isfinite().all())
    assert reward.grad.tolist() == pytest.approx([STEEPEST] * 3)
    line = torch.linspace(-4, 1, 2001, dtype=torch.float64)
    jumps = phi(line, kind).diff()
    assert float(jumps.min()) > 0
    assert float(jumps.max()) <= STEEPEST * 5 / 2000 + 1e-9


def test_deleting_at_the_empty_beginning_is_defined():
    assert kept([9, 9, 4], 9) == [4]

"""Flows of hand-made lines."""

import pytest
import torch

from lrl_plugins.objectives.flow import balance_loss, flow_gaps, span_weights, variance_count, variance_loss


def states(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def test_the_bracket_between_two_states_is_that_of_the_paper():
    """Three states; the word of an environment stands between the first and the second."""
    mask = states([1, 0, 1, 1])
    log_pf, log_stop, log_r = torch.tensor(
        [[[-1.0, 9.0, -0.5, -3.0]], [[-2.0, 9.0, -0.25, -3.0]], [[1.0, 9.0, 2.0, 5.0]]]
    )
    gaps = flow_gaps(log_pf, log_stop, log_r, mask)
    # log R(s_i) + log q(s_j | s_i) + log q(stop | s_j) - log R(s_j) - log q(stop | s_i)
    first, second = 1.0 - 1.0 - 0.25 - 2.0 + 2.0, 2.0 - 0.5 - 3.0 - 5.0 + 0.25
    whole = 1.0 - 1.5 - 3.0 - 5.0 + 2.0
    assert (gaps[0, 2] - gaps[0, 0]).item() == pytest.approx(first)
    assert (gaps[0, 3] - gaps[0, 2]).item() == pytest.approx(second)
    assert gaps[0, 1] == 0
    loss = balance_loss(gaps, span_weights(mask, "subtrajectory", 0.5)).item()
    assert loss == pytest.approx(first**2 + second**2 + 0.5 * whole**2)
    assert balance_loss(gaps, span_weights(mask, "trajectory", 0.5)).item() == pytest.approx(whole**2)
    assert balance_loss(gaps, span_weights(mask, "detailed", 0.5)).item() == pytest.approx(first**2 + second**2)


@pytest.mark.parametrize(
    ("balance", "decay", "counts"),
    [
        ("subtrajectory", 1.0, [0, 1, 3, 6]),
        ("subtrajectory", 0.5, [0, 1, 2.5, 4.25]),
        ("subtrajectory", 0.0, [0, 1, 2, 3]),
        ("detailed", 1.0, [0, 1, 2, 3]),
        ("trajectory", 0.5, [0, 1, 1, 1]),
    ],
)
def test_weights_add_up_to_the_number_of_terms(balance, decay, counts):
    """A line of n symbols has n + 1 states; one that ends at once has no pair of them."""
    for symbols, expected in enumerate(counts):
        mask = (torch.arange(5) <= symbols)[None]
        assert span_weights(mask, balance, decay).sum().item() == expected
    assert span_weights(states([0, 0, 0]), balance, decay).sum() == 0


def test_variance_is_within_a_prompt():
    gaps = torch.tensor([1.0, 3.0, 10.0, 7.0, torch.nan])
    group, whole = torch.tensor([4, 4, 9, 4, 9]), torch.tensor([True, True, True, True, False])
    mean = 11 / 3
    expected = (1 - mean) ** 2 + (3 - mean) ** 2 + (7 - mean) ** 2
    assert variance_loss(gaps, group, whole).item() == pytest.approx(expected)
    assert variance_count(group, whole).item() == 2

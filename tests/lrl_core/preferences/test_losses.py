import itertools
import math

import pytest
import torch

from lrl_core.preferences.losses import (
    MOST_TIED,
    best_of_k,
    bradley_terry,
    centring,
    loss_of,
    pairwise,
    plackett_luce,
)

torch.set_num_threads(1)
NAMES = ("best_of_k", "bradley_terry", "pairwise", "plackett_luce")


def given(scores, ranks, mask=None):
    scores, ranks = torch.tensor(scores, dtype=torch.double), torch.tensor(ranks)
    return scores, ranks, torch.ones_like(ranks, dtype=torch.bool) if mask is None else torch.tensor(mask)


def test_golden_numbers():
    """r = [2, 1, 0], ranked as the scores are."""
    assert plackett_luce(*given([[2, 1, 0]], [[0, 1, 2]])).each.item() == pytest.approx(0.720868, abs=1e-6)
    assert best_of_k(*given([[2, 1, 0]], [[0, 1, 1]])).each.item() == pytest.approx(0.407606, abs=1e-6)
    assert pairwise(*given([[2, 1, 0]], [[0, 1, 2]])).each.item() == pytest.approx(0.251150, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "ranks", "chance"),
    [
        (bradley_terry, [0, 1], math.log(2)),
        (pairwise, [0, 2, 1, 1], math.log(2)),
        (best_of_k, [1, 1, 0, 1], math.log(4)),
        (plackett_luce, [0, 2, 1, 3], math.log(24)),
    ],
)
def test_chance_levels(loss, ranks, chance):
    assert loss(*given([[0.0] * len(ranks)], [ranks])).each.item() == pytest.approx(chance, abs=1e-12)


def orders_of(ranks):
    """Every order of the candidates that the ranks allow."""
    groups = [[i for i, rank in enumerate(ranks) if rank == own] for own in sorted(set(ranks))]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [i for part in parts for i in part]


def by_enumeration(scores, ranks):
    """Probability of a weak order: the sum over its full orders of the products of choices."""
    worth = [math.exp(score) for score in scores]
    total = 0.0
    for order in orders_of(ranks):
        left, probability = sum(worth), 1.0
        for i in order:
            probability *= worth[i] / left
            left -= worth[i]
        total += probability
    return total


@pytest.mark.parametrize("ranks", list(itertools.product(range(3), repeat=5)))
def test_ties_are_orders_that_nobody_told(ranks):
    scores = [0.3, -1.2, 0.9, 0.1, 2.0]
    each, says = plackett_luce(*given([scores], [ranks]))
    assert each.item() == pytest.approx(-math.log(by_enumeration(scores, ranks)), abs=1e-9)
    assert bool(says) == (len(set(ranks)) > 1)


def test_the_weak_orders_of_three_have_total_probability_one_where_they_exclude_each_other():
    scores = [0.7, -0.4, 0.2]
    top = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    last = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    for family in (top, last):
        each = plackett_luce(*given([scores] * 3, family)).each
        assert each.neg().exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_a_large_tie_at_the_top():
    """Eight equal scores before two: one of C(10, 2) equally probable pairs is left."""
    each = plackett_luce(*given([[0.5] * 10], [[0] * 8 + [1, 1]])).each
    assert each.item() == pytest.approx(math.log(45), abs=1e-9)


def test_plackett_luce_contains_the_others():
    pair = given([[0.4, -1.1], [2.0, 2.5]], [[0, 1], [0, 1]])
    assert torch.allclose(plackett_luce(*pair).each, bradley_terry(*pair).each)
    top = given([[0.4, -1.1, 0.2], [2.0, 2.5, -3.0]], [[1, 0, 1], [3, 3, 0]])
    assert torch.allclose(plackett_luce(*top).each, best_of_k(*top).each)


def test_pairwise_is_one_element_per_comparison_and_drops_ties():
    scores, ranks, mask = given([[1.0, 0.5, -0.5, -0.7]], [[0, 1, 2, 2]])
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]  # not (2, 3)
    expected = sum(math.log1p(math.exp(-(float(scores[0, w] - scores[0, lost])))) for w, lost in pairs) / 5
    assert pairwise(scores, ranks, mask).each.item() == pytest.approx(expected, abs=1e-9)


def test_margin_and_smoothing_by_hand():
    two = given([[1.5, 0.5]], [[0, 1]])
    assert bradley_terry(*two, margin=0.4).each.item() == pytest.approx(math.log1p(math.exp(-0.6)))
    wrong, right = math.log1p(math.exp(1)), math.log1p(math.exp(-1))
    assert bradley_terry(*two, smoothing=0.1).each.item() == pytest.approx(0.9 * right + 0.1 * wrong)


def test_centring_is_the_only_one_that_sees_a_shift():
    two = given([[1.5, -0.5], [3.0, 1.0]], [[0, 1], [1, 0]])
    assert centring(*two).tolist() == pytest.approx([1.0, 16.0])
    assert centring(*given([[1.0, 2.0, 4.0]], [[0, 0, 1]])).item() == pytest.approx((25 + 36) / 2)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_added_to_a_whole_comparison_changes_nothing(name):
    scores, ranks, mask = given([[0.3, -1.0], [0.2, 2.0]], [[0, 1], [1, 0]])
    shifted = scores + torch.tensor([[7.0], [-3.0]])
    assert torch.allclose(loss_of(name)(scores, ranks, mask).each, loss_of(name)(shifted, ranks, mask).each)
    assert not torch.allclose(loss_of(name)(scores, ranks, mask).each, loss_of(name)(2 * scores, ranks, mask).each)


@pytest.mark.parametrize("name", NAMES)
def test_padding_has_no_say(name):
    plain = loss_of(name)(*given([[0.3, -1.0]], [[0, 1]]))
    for rank, score in [(0, 9.0), (1, -9.0), (5, 0.0)]:
        padded = loss_of(name)(*given([[0.3, score, -1.0]], [[0, rank, 1]], [[True, False, True]]))
        assert torch.allclose(plain.each, padded.each)
        assert padded.says.tolist() == [True]


@pytest.mark.parametrize("name", NAMES)
def test_candidates_have_no_order(name):
    scores, ranks, mask = given([[0.3, -1.0, 5.0]], [[0, 1, 2]], [[True, True, False]])
    order = [2, 0, 1]
    moved = loss_of(name)(scores[:, order], ranks[:, order], mask[:, order])
    assert torch.allclose(loss_of(name)(scores, ranks, mask).each, moved.each)


@pytest.mark.parametrize("name", NAMES)
def test_ties_alone_say_nothing_and_leave_finite_gradients(name):
    scores, ranks, mask = given([[0.3, -1.0], [0.2, 2.0]], [[1, 1], [1, 0]])
    each, says = loss_of(name)(scores.requires_grad_(), ranks, mask)
    assert says.tolist() == [False, True]
    assert each[0] == 0
    each.sum().backward()
    assert scores.grad[0].tolist() == [0, 0]
    assert scores.grad.isfinite().all()
    assert scores.grad[1, 1] < 0 < scores.grad[1, 0]


def test_best_of_k_needs_one_best():
    each, says = best_of_k(*given([[0.3, -1.0, 2.0]] * 3, [[0, 0, 1], [1, 1, 2], [0, 1, 2]]))
    assert says.tolist() == [False, False, True]
    assert each[:2].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["bradley_terry", "plackett_luce", "pairwise"])
def test_gradients_are_those_of_finite_differences(name):
    ranks, width = ([[0, 1], [1, 0]], 2) if name == "bradley_terry" else ([[0, 0, 1, 2], [2, 1, 1, 0]], 4)
    torch.manual_seed(0)
    scores = torch.randn(2, width, dtype=torch.double, requires_grad=True)
    mask = torch.ones(2, width, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: loss_of(name)(x, torch.tensor(ranks), mask).each, (scores,))


def test_infinite_data_recover_the_worth_up_to_a_constant():
    """Minimising the expected Bradley-Terry loss over all pairs of three items gives back their worth."""
    worth = torch.tensor([1.0, 0.2, -0.8], dtype=torch.double)
    pairs = torch.tensor(list(itertools.permutations(range(3), 2)))
    weight = torch.sigmoid(worth[pairs[:, 0]] - worth[pairs[:, 1]])
    scores = torch.zeros(3, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=100, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        ranks = torch.tensor([[0, 1]]).expand(len(pairs), 2)
        loss = (weight * bradley_terry(scores[pairs], ranks, torch.ones_like(ranks, dtype=torch.bool)).each).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(scores - scores.mean(), worth - worth.mean(), atol=1e-6)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="comparison of 3 candidates; expected two"):
        bradley_terry(*given([[0.0, 1.0, 2.0]], [[0, 1, 2]]))
    with pytest.raises(ValueError, match="share the rank 0; expected at most"):
        plackett_luce(*given([[0.0] * (MOST_TIED + 2)], [[0] * (MOST_TIED + 1) + [1]]))
    with pytest.raises(ValueError, match="expected one of best_of_k, bradley_terry"):
        loss_of("hinge")
    with pytest.raises(ValueError, match="about pairs"):
        loss_of("best_of_k", margin=1.0)
    with pytest.raises(ValueError, match="smoothing in"):
        loss_of("pairwise", smoothing=0.5)

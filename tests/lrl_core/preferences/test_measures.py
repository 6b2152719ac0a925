import math

import pytest
import torch
from scipy.stats import kendalltau

from lrl_core.preferences.measures import (
    PreferenceMetrics,
    accuracy,
    brier,
    calibration_error,
    kendall_tau,
    log_loss,
    pairs_of,
)

torch.set_num_threads(1)


def full(ranks):
    return torch.ones(len(ranks), len(ranks[0]), dtype=torch.bool)


def test_pairs_by_hand():
    scores = torch.tensor([[3.0, 1.0, 1.0], [0.0, 2.0, 9.0]])
    ranks = torch.tensor([[0, 1, 2], [0, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    margin, comparison = pairs_of(scores, ranks, mask)
    assert margin.tolist() == [2, 2, 0]
    assert comparison.tolist() == [0, 0, 0]
    assert accuracy(margin).item() == pytest.approx(2.5 / 3)  # equal scores count one half


def test_what_constant_scores_are_worth():
    margin = torch.zeros(7)
    assert accuracy(margin) == 0.5
    assert log_loss(margin).item() == pytest.approx(math.log(2))
    assert brier(margin).item() == pytest.approx(0.25)
    assert calibration_error(margin) == 0


def logit(p):
    return math.log(p / (1 - p))


def test_calibration_error_by_hand():
    """Claims of .93 (3 of 4 right), .71 (2 of 2 right): (4 |.75 - .93| + 2 |1 - .71|) / 6."""
    margin = torch.tensor([logit(0.93)] * 3 + [-logit(0.93)] + [logit(0.71)] * 2)
    assert calibration_error(margin).item() == pytest.approx((4 * 0.18 + 2 * 0.29) / 6, abs=1e-6)


def test_calibrated_claims_have_no_error():
    margin = torch.tensor([logit(0.75)] * 3 + [-logit(0.75)])
    assert calibration_error(margin).item() == pytest.approx(0, abs=1e-6)
    assert brier(margin).item() == pytest.approx((3 * 0.25**2 + 0.75**2) / 4, abs=1e-6)


def test_tau_is_scipy_s_tau_b():
    torch.manual_seed(0)
    scores = torch.randint(0, 4, (40, 6)).float()
    ranks = torch.randint(0, 4, (40, 6))
    for line, given, tau in zip(scores, ranks, kendall_tau(scores, ranks, full(ranks)), strict=True):
        assert tau.item() == pytest.approx(kendalltau(line.numpy(), -given.numpy()).statistic, abs=1e-12)


def test_tau_of_nothing():
    ranks = torch.tensor([[0, 1, 2], [1, 1, 1]])
    tau = kendall_tau(torch.tensor([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]]), ranks, full(ranks))
    assert tau[0] == 0
    assert tau[1].isnan()


def test_the_metric_counts_an_id_once_and_forgets():
    metric = PreferenceMetrics()
    scores, ranks = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0, 1], [0, 1]])
    metric.update(["a", "b"], scores, ranks, full(ranks))
    metric.update(["a"], -scores[:1], ranks[:1], full(ranks)[:1])  # a repetition that fills the last batch
    found = metric.compute()
    assert found["accuracy"] == 0.5
    assert found["margin"] == pytest.approx(-0.5)
    assert "kendall_tau" not in found
    metric.reset()
    assert metric.compute() == {}


def test_the_metric_measures_rankings_of_unequal_length():
    metric = PreferenceMetrics()
    scores = torch.tensor([[3.0, 2.0, 1.0], [0.0, 1.0, 5.0]])
    ranks = torch.tensor([[0, 1, 2], [0, 1, 0]])
    metric.update(["a", "b"], scores, ranks, torch.tensor([[True] * 3, [True, True, False]]))
    found = metric.compute()
    assert found["kendall_tau"] == 1  # that of the longer one
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert set(found) == {"accuracy", "margin", "log_loss", "brier", "calibration_error", "kendall_tau"}


def test_ties_alone_measure_nothing():
    metric = PreferenceMetrics()
    ranks = torch.tensor([[0, 0]])
    metric.update(["a"], torch.tensor([[1.0, 2.0]]), ranks, full(ranks))
    assert metric.compute() == {}

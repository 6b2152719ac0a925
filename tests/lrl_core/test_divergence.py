"""Estimators of the KL divergence, against the exact divergence of two distributions over four tokens."""

import pytest
import torch

from lrl_core.divergence import clamped_log_ratio, kl_estimate, log_ratio_by_episode

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


def expected(estimator):
    """Mean and spread over draws from P, and the mean gradient with respect to P's logits, draws held fixed."""
    logits = P.log().requires_grad_()
    estimates = kl_estimate(logits.log_softmax(0), Q.log(), estimator)
    mean = (P * estimates).sum()
    spread = (P * (estimates - mean) ** 2).sum().sqrt()
    return mean.item(), spread.item(), torch.autograd.grad(mean, logits)[0].tolist()


@pytest.mark.parametrize(
    ("estimator", "mean", "spread"),
    [("k1", 0.033762106, 0.245344), ("k2", 0.030666660, 0.050118), ("k3", 0.033762106, 0.064409)],
)
def test_mean_and_spread(estimator, mean, spread):
    got = expected(estimator)
    assert got[0] == pytest.approx(mean, abs=1e-9)
    assert got[1] == pytest.approx(spread, abs=1e-6)


@pytest.mark.parametrize(
    ("estimator", "gradient"),
    [
        ("k1", [0, 0, 0, 0]),
        ("k2", [0.094691, -0.010129, -0.048217, -0.036345]),
        ("k3", [0.1, 0, -0.05, -0.05]),
        ("k3+", [0.094691, -0.010129, -0.048217, -0.036345]),
    ],
)
def test_gradient_as_a_loss(estimator, gradient):
    assert expected(estimator)[2] == pytest.approx(gradient, abs=1e-6)


def test_k2_has_the_gradient_of_the_divergence_itself():
    logits = P.log().requires_grad_()
    logprobs = logits.log_softmax(0)
    exact = (logprobs.exp() * (logprobs - Q.log())).sum()
    assert expected("k2")[2] == pytest.approx(torch.autograd.grad(exact, logits)[0].tolist(), abs=1e-12)


def test_k3_plus_has_the_value_of_k3():
    assert expected("k3+")[:2] == pytest.approx(expected("k3")[:2], abs=1e-12)


def test_far_apart_stays_finite():
    far = torch.tensor([-500.0, 3.0], requires_grad=True)
    estimates = kl_estimate(far, torch.tensor([0.0, 3.0]), "k3")
    estimates.sum().backward()
    assert estimates.isfinite().all()
    assert far.grad.isfinite().all()
    assert clamped_log_ratio(torch.tensor([100.0, -100.0, 1.0]), torch.zeros(3)).tolist() == [20, -20, 1]


def test_an_unknown_estimator_is_named():
    with pytest.raises(ValueError, match="estimator is 'k4'; expected k1, k2, k3 or"):
        kl_estimate(P, Q, "k4")


def test_log_ratio_by_episode_counts_masked_tokens_only():
    mask = torch.tensor([[True, True, False], [False, False, False]])
    policy = torch.tensor([[-1.0, -2.0, -50.0], [-1.0, -1.0, -1.0]])
    reference = torch.tensor([[-1.5, -1.0, -torch.inf], [-2.0, -2.0, -2.0]])
    assert log_ratio_by_episode(policy, reference, mask).tolist() == [-0.5, 0.0]

"""MAUVE of histograms and of features: golden numbers, and a plain integral."""

import numpy as np
import pytest

from lrl_core.metrics.mauve import frontier_integral, mauve, mauve_of_histograms, smoothed

P, UNIFORM = [0.5, 0.3, 0.2, 0.0], [0.25] * 4


def test_histograms_have_the_golden_numbers():
    assert mauve_of_histograms(P, P) == pytest.approx(1.0)
    assert mauve_of_histograms([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]) == 1  # divergences of exactly 0: ties on the curve
    assert mauve_of_histograms(P, UNIFORM) == pytest.approx(0.608114, abs=1e-6)
    assert mauve_of_histograms(UNIFORM, P) == pytest.approx(0.608114, abs=1e-6)
    assert mauve_of_histograms([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]) == pytest.approx(0.004072, abs=1e-6)


def test_a_larger_scaling_makes_differences_count_more():
    assert mauve_of_histograms(P, UNIFORM, scaling=10) < 0.6 < mauve_of_histograms(P, UNIFORM, scaling=2)


def test_the_frontier_integral_is_the_integral():
    p, q = np.array([*P, 0.0]), np.array([0.1, 0.3, 0.1, 0.2, 0.3])
    weights = (np.arange(20000) + 0.5) / 20000

    def divergence(one, mixture):
        return sum(x * np.log(x / y) for x, y in zip(one, mixture, strict=True) if x > 0)

    rows = [(w, w * p + (1 - w) * q) for w in weights]
    expected = 2 * np.mean([w * divergence(p, r) + (1 - w) * divergence(q, r) for w, r in rows])
    assert frontier_integral(p, q) == pytest.approx(expected, abs=1e-6)
    assert frontier_integral(q, p) == pytest.approx(expected, abs=1e-6)
    assert frontier_integral(P, P) == 0
    assert frontier_integral([1, 0], [0, 1]) == 1


def test_smoothing_adds_half_a_text_to_each_bucket():
    assert smoothed([3, 0, 1]).tolist() == pytest.approx([3.5 / 5.5, 0.5 / 5.5, 1.5 / 5.5])


def clouds(centres, seed, each=20):
    draw = np.random.default_rng(seed)
    return np.concatenate([centre + 0.01 * draw.normal(size=(each, 3)) for centre in np.eye(3)[centres]])


def test_features_in_clear_clouds_give_the_mauve_of_their_shares():
    """Three tight clouds and three buckets: k-means must find the clouds, and their shares are known."""
    pytest.importorskip("sklearn")
    human, model = clouds([0, 1, 1, 2], 0), clouds([0, 0, 0, 1], 1)
    expected = mauve_of_histograms([0.25, 0.5, 0.25], [0.75, 0.25, 0])
    assert mauve(human, model, buckets=3) == pytest.approx(expected)
    assert mauve(model * 7, human * 0.1, buckets=3) == pytest.approx(expected)  # features are normalised
    starred = mauve_of_histograms(smoothed([20, 40, 20]), smoothed([60, 20, 0]))
    assert mauve(human, model, buckets=3, smooth=True) == pytest.approx(starred)
    assert mauve(human, human) == pytest.approx(1)
    assert mauve(human, clouds([0, 1, 1, 2], 2), buckets=3) == pytest.approx(1)


def test_texts_that_are_all_alike_have_nothing_apart():
    pytest.importorskip("sklearn")
    assert mauve(np.ones((4, 3)), np.ones((3, 3))) == pytest.approx(1)
    assert mauve(np.eye(3)[[0, 0, 1]], np.eye(3)[[0, 1, 0]], buckets=9) == pytest.approx(1)  # two distinct points


@pytest.mark.parametrize("wrong", [([0.5, 0.5], [1.0]), ([0.5, 0.4], [0.5, 0.5]), ([1.5, -0.5], [0.5, 0.5])])
def test_what_is_no_pair_of_histograms_is_refused(wrong):
    with pytest.raises(ValueError, match="mauve: got histograms of shapes"):
        mauve_of_histograms(*wrong)
    with pytest.raises(ValueError, match="got 1 human and 3 generated texts"):
        mauve(np.ones((1, 2)), np.ones((3, 2)))

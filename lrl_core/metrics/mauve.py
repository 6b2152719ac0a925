"""MAUVE: how near the distribution of generated texts is to that of human ones (Pillutla et al. 2021)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

Histogram = Float[np.ndarray, " k"]
"""Shares of the texts that fall into each of k buckets; they add up to 1."""


def mauve_of_histograms(
    p: Sequence[float] | Histogram, q: Sequence[float] | Histogram, scaling: float = 5.0, points: int = 25
) -> float:
    """MAUVE of two distributions over the same buckets, in [0, 1]; 1 where they are equal (arXiv 2102.01454, eq. 1).

    The area under the curve of (exp(-c KL(q | r)), exp(-c KL(p | r))) for mixtures r = w p + (1 - w) q.

    Args:
        p: Shares of the human texts by bucket.
        q: Shares of the generated ones; exchanging both changes nothing.
        scaling: c, > 0; larger values make small differences count more.
        points: Mixtures on the curve.
    """
    human, model = _checked(p, q)
    weights = np.linspace(1e-6, 1 - 1e-6, points)[:, None]
    mixtures = weights * human + (1 - weights) * model
    x = np.exp(-scaling * np.array([0, *(_divergence(model, mixture) for mixture in mixtures), np.inf]))
    y = np.exp(-scaling * np.array([np.inf, *(_divergence(human, mixture) for mixture in mixtures), 0]))
    # The curve falls from (0, 1) to (1, 0): of points with one x, the highest comes first.
    by_x, by_y = np.lexsort((-y, x)), np.lexsort((-x, y))
    return float((_area(x[by_x], y[by_x]) + _area(y[by_y], x[by_y])) / 2)


def frontier_integral(p: Sequence[float] | Histogram, q: Sequence[float] | Histogram) -> float:
    """The whole curve of divergences in one number, in [0, 1]; 0 where p and q are equal, 1 where they share nothing.

    2 times the integral of w KL(p | r) + (1 - w) KL(q | r) over the mixtures r = w p + (1 - w) q (Liu et al. 2021,
    arXiv 2106.07898), here in closed form.

    Args:
        p: Shares of the human texts by bucket.
        q: Shares of the generated ones; exchanging both changes nothing.
    """
    human, model = _checked(p, q)
    total = human + model
    both = (human > 0) & (model > 0) & (np.abs(human - model) > 1e-8 * total)
    a, b = human[both], model[both]
    alone = total[(human == 0) | (model == 0)].sum() / 2
    return float(alone + (total[both] / 2 - a * b * np.log(a / b) / (a - b)).sum())


def smoothed(counts: Sequence[int] | Int[np.ndarray, " k"]) -> Histogram:
    """Shares of counts with half a text more in each bucket (Krichevsky and Trofimov), as in MAUVE* (Pillutla 2023).

    Args:
        counts: Texts in each bucket, at least one bucket.
    """
    more = np.asarray(counts, dtype=np.float64) + 0.5
    return more / more.sum()


def mauve(
    features_p: Float[np.ndarray, "n d"],
    features_q: Float[np.ndarray, "m d"],
    buckets: int | None = None,
    variance: float = 0.9,
    seed: int = 25,
    restarts: int = 5,
    scaling: float = 5.0,
    smooth: bool = False,
) -> float:
    """MAUVE of texts given by features, in [0, 1]; needs scikit-learn.

    Both sets share k-means buckets in the principal components of the normalised features. A few hundred texts tell
    models apart only roughly; 5000 of each kind make it stable. Only equal numbers of texts compare.

    Args:
        features_p: One line per human text.
        features_q: One line per generated text.
        buckets: How many; None = a tenth of the texts of the smaller set, at least 2.
        variance: Share of the variance that the principal components keep, in (0, 1].
        seed: Of k-means.
        restarts: The best of so many runs of k-means counts.
        scaling: See mauve_of_histograms.
        smooth: Half a text more in each bucket: MAUVE*.
    """
    if min(len(features_p), len(features_q)) < 2:
        raise ValueError(
            f"mauve: got {len(features_p)} human and {len(features_q)} generated texts, expected at least 2 of each. "
            "Give more."
        )
    count = buckets or max(2, round(min(len(features_p), len(features_q)) / 10))
    labels = _quantised(np.concatenate([features_p, features_q]), count, variance, seed, restarts)
    counts = [np.bincount(own, minlength=count) for own in (labels[: len(features_p)], labels[len(features_p) :])]
    p, q = (smoothed(own) if smooth else own / own.sum() for own in counts)
    return mauve_of_histograms(p, q, scaling)


def _quantised(
    features: Float[np.ndarray, "n d"], buckets: int, variance: float, seed: int, restarts: int
) -> Int[np.ndarray, " n"]:
    """The bucket of each line."""
    try:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise ImportError(
            "mauve: got no scikit-learn, expected it to be installed, for it makes the buckets. Run `pip install "
            "'lrl[mauve]'`, or name no encoder."
        ) from error
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    if not np.ptp(unit, axis=0).any():  # all alike: one bucket, and no components
        return np.zeros(len(unit), np.int64)
    components = PCA(random_state=seed).fit(unit)
    kept = int(np.searchsorted(np.cumsum(components.explained_variance_ratio_), variance - 1e-9)) + 1
    points = components.transform(unit)[:, :kept]
    distinct = len(np.unique(points.round(9), axis=0))
    made = KMeans(min(buckets, distinct), n_init=restarts, max_iter=500, random_state=seed)
    return made.fit_predict(points).astype(np.int64)


def _divergence(p: Histogram, q: Histogram) -> float:
    """KL(p | q); q is positive wherever p is."""
    some = p > 0
    return max(0.0, float((p[some] * np.log(p[some] / q[some])).sum()))  # rounding can make it negative


def _area(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def _checked(p: Sequence[float] | Histogram, q: Sequence[float] | Histogram) -> tuple[Histogram, Histogram]:
    human, model = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    fine = human.shape == model.shape and human.ndim == 1 and human.min(initial=0) >= 0 and model.min(initial=0) >= 0
    if not fine or abs(human.sum() - 1) > 1e-6 or abs(model.sum() - 1) > 1e-6:
        raise ValueError(
            f"mauve: got histograms of shapes {human.shape} and {model.shape} that add up to {human.sum():.6g} and "
            f"{model.sum():.6g}; expected two of one length that add up to 1, no entry negative. Divide counts by "
            "their sum."
        )
    return human, model

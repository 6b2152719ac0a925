"""The latency metrics against numbers computed by hand from the papers' formulas, and properties of the definitions."""

import math

import pytest

from lrl_plugins.tasks.simultaneous_translation.metrics import (
    average_lagging,
    average_proportion,
    consecutive_wait,
    differentiable_average_lagging,
    length_adaptive_average_lagging,
    longest_wait,
)

METRICS = (
    average_lagging,
    length_adaptive_average_lagging,
    differentiable_average_lagging,
    average_proportion,
    consecutive_wait,
    longest_wait,
)

GOLDEN = {  # delays, source and reference length: AL, LAAL, DAL, AP, CW, longest wait
    "wait-1": ([1, 2, 3, 4, 5], 5, 5, (1, 1, 1, 0.6, 1, 1)),
    "wait-3": ([3, 4, 5, 5, 5], 5, 5, (3, 3, 3, 0.88, 5 / 3, 3)),
    "whole sentence first": ([5, 5, 5, 5, 5], 5, 5, (5, 5, 5, 1, 5, 5)),
    "too many words": ([2, 2, 3, 4, 4, 4], 4, 4, (1.25, 1.75, 2, 1.1875, 4 / 3, 2)),
    "too few words": ([2, 4, 6], 6, 6, (3, 3, 2, 1 / 3, 2, 2)),
    "RRWRRRWW after one read": ([2, 5, 5], 5, 3, (8 / 3, 8 / 3, 26 / 9, 0.8, 2.5, 3)),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_numbers(case):
    delays, source, reference, expected = GOLDEN[case]
    assert [metric(delays, source, reference) for metric in METRICS] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_wait_k_lags_k_words(n):
    for k in range(1, n + 1):
        delays = [min(k + t, n) for t in range(n)]
        assert average_lagging(delays, n, n) == pytest.approx(k)
        assert length_adaptive_average_lagging(delays, n, n) == pytest.approx(k)
        assert differentiable_average_lagging(delays, n, n) == pytest.approx(k)
        assert longest_wait(delays, n, n) == k


def test_one_that_reads_all_first_lags_the_whole_source_at_any_length():
    for source, reference, words in ((4, 4, 4), (4, 9, 3), (9, 4, 5)):
        assert average_lagging([source] * words, source, reference) == source
        assert length_adaptive_average_lagging([source] * words, source, reference) == source
        assert average_proportion([source] * words, source, words) == 1


def test_talking_on_lowers_the_plain_lag_below_zero_and_the_adaptive_one_less():
    chatter = [1] * 9 + [5]
    # gamma = 3/5: the sum of d_i is 14 over tau = 10 words, that of (i - 1) / gamma 45 * 5 / 3
    assert average_lagging(chatter, 5, 3) == pytest.approx((14 - 75) / 10)
    # gamma = 10/5
    assert length_adaptive_average_lagging(chatter, 5, 3) == pytest.approx((14 - 45 / 2) / 10)
    for words in range(1, 15):
        delays = [min(1 + t // 2, 6) for t in range(words)]
        plain, adaptive = average_lagging(delays, 6, 6), length_adaptive_average_lagging(delays, 6, 6)
        assert adaptive == pytest.approx(plain) if words <= 6 else adaptive > plain


def test_lag_stops_counting_once_the_source_is_read():
    assert average_lagging([1, 4], 4, 4) == average_lagging([1, 4, 4, 4, 4], 4, 4) == (1 + (4 - 1)) / 2


def test_the_differentiable_lag_does_not_know_the_reference():
    assert differentiable_average_lagging([2, 4, 6], 6, 6) == differentiable_average_lagging([2, 4, 6], 6, 60)


def test_nothing_read_is_no_wait():
    assert consecutive_wait([0, 0], 3, 2) == longest_wait([0, 0], 3, 2) == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("delays", "source", "reference", "message"),
    [
        ([], 3, 3, "no delays, expected one for every word"),
        ([2, 1], 3, 3, r"\[2, 1\], expected numbers that never decrease"),
        ([1, 4], 3, 3, r"\[1, 4\] for a source of 3 words, expected numbers from 0 to 3"),
        ([-1, 2], 3, 3, "expected numbers from 0 to 3"),
        ([math.nan], 3, 3, "expected numbers from 0 to 3"),
        ([0], 0, 3, "a source of 0 and a reference of 3 words"),
        ([1], 3, 0, "a source of 3 and a reference of 0 words"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric, delays, source, reference, message):
    with pytest.raises(ValueError, match=f"{metric.__name__}: got .*{message}"):
        metric(delays, source, reference)

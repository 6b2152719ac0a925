"""How late a translation is: latency metrics of one sentence from its delays, as SimulEval defines them.

A delay d_i says how many source words had been read when target word i was written; X is the source, Y the hypothesis
(one delay per word), Y* the reference. A corpus has the arithmetic mean of its sentences.
"""

from collections.abc import Sequence
from itertools import pairwise


def average_proportion(delays: Sequence[float], source_length: int, reference_length: int) -> float:
    """The share of the source that had been read when a word was written: 1 when all is read first.

    AP = sum_i d_i / (|X| |Y*|) (Cho and Esipova 2016, with the reference length as in SimulEval, so that a hypothesis
    longer than the reference can exceed 1).

    Args:
        delays: Of the words of the hypothesis, never decreasing, each in 0 .. source_length.
        source_length: Words of the source.
        reference_length: Words of the reference.
    """
    _check("average_proportion", delays, source_length, reference_length)
    return sum(delays) / (source_length * reference_length)


def average_lagging(delays: Sequence[float], source_length: int, reference_length: int) -> float:
    """How many source words the writer lags behind one that writes in step with the speaker.

    AL = 1/tau sum_{i<=tau} (d_i - (i - 1) / gamma), gamma = |Y*| / |X|, and tau the first word that was written with
    the whole source read, else the last (Ma et al. 2019, average lagging). wait-k on equal lengths has k. A
    hypothesis longer than the reference can make it negative: see `length_adaptive_average_lagging`.

    Args:
        delays: Of the words of the hypothesis, never decreasing, each in 0 .. source_length.
        source_length: Words of the source.
        reference_length: Words of the reference.
    """
    _check("average_lagging", delays, source_length, reference_length)
    return _lagging(delays, source_length, reference_length)


def length_adaptive_average_lagging(delays: Sequence[float], source_length: int, reference_length: int) -> float:
    """Average lagging that writing too many words cannot lower.

    LAAL is AL with gamma = max(|Y|, |Y*|) / |X| (Polák et al. 2022; Papi et al. 2022): it is AL for
    hypotheses that are no longer than the reference, and more than AL for longer ones.

    Args:
        delays: Of the words of the hypothesis, never decreasing, each in 0 .. source_length.
        source_length: Words of the source.
        reference_length: Words of the reference.
    """
    _check("length_adaptive_average_lagging", delays, source_length, reference_length)
    return _lagging(delays, source_length, max(len(delays), reference_length))


def differentiable_average_lagging(delays: Sequence[float], source_length: int, reference_length: int) -> float:
    """Average lagging over all words, where writing a word takes the time in which 1 / gamma source words are said.

    DAL = 1/|Y| sum_i (d'_i - (i - 1) / gamma), d'_1 = d_1, d'_i = max(d_i, d'_{i-1} + 1 / gamma), gamma = |Y| / |X|
    with the hypothesis length (Cherry and Foster 2019).

    Args:
        delays: Of the words of the hypothesis, never decreasing, each in 0 .. source_length.
        source_length: Words of the source.
        reference_length: Words of the reference; checked only, the definition has no use for it.
    """
    _check("differentiable_average_lagging", delays, source_length, reference_length)
    pace = source_length / len(delays)
    total, last = 0.0, float("-inf")
    for i, delay in enumerate(delays):
        last = max(delay, last + pace)
        total += last - i * pace
    return total / len(delays)


def consecutive_wait(delays: Sequence[float], source_length: int, reference_length: int) -> float:
    """How many source words are read at a stretch, on average over the stretches that a written word ends.

    CW = sum_i c_i / sum_i 1[c_i > 0], c_i = d_i - d_{i-1} the words read right before word i, d_0 = 0 (Gu et al.
    2017); 0 when nothing was read.

    Args:
        delays: Of the words of the hypothesis, never decreasing, each in 0 .. source_length.
        source_length: Words of the source; checked only.
        reference_length: Words of the reference; checked only.
    """
    _check("consecutive_wait", delays, source_length, reference_length)
    waits = _waits(delays)
    return sum(waits) / len(waits) if waits else 0.0


def longest_wait(delays: Sequence[float], source_length: int, reference_length: int) -> float:
    """How many source words are read at a stretch, at most: the greatest c_i of `consecutive_wait`.

    Args:
        delays: Of the words of the hypothesis, never decreasing, each in 0 .. source_length.
        source_length: Words of the source; checked only.
        reference_length: Words of the reference; checked only.
    """
    _check("longest_wait", delays, source_length, reference_length)
    return float(max(_waits(delays), default=0))


def _lagging(delays: Sequence[float], source_length: int, target_length: int) -> float:
    total, tau = 0.0, 0
    for delay in delays:
        total += delay - tau * source_length / target_length
        tau += 1
        if delay >= source_length:
            break
    return total / tau


def _waits(delays: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise([0, *delays]) if later > earlier]


def _check(who: str, delays: Sequence[float], source_length: int, reference_length: int) -> None:
    if source_length < 1 or reference_length < 1:
        raise ValueError(
            f"{who}: got a source of {source_length} and a reference of {reference_length} words, expected at least "
            "one word in each. Leave such sentences out."
        )
    if not delays:
        raise ValueError(
            f"{who}: got no delays, expected one for every word of the hypothesis. Leave sentences without a "
            "hypothesis out of the mean, and count them."
        )
    if not all(0 <= delay <= source_length for delay in delays):
        raise ValueError(
            f"{who}: got the delays {list(delays)} for a source of {source_length} words, expected numbers from 0 to "
            f"{source_length}. Count source words, not word pieces or the end token, and none of them twice."
        )
    if any(later < earlier for earlier, later in pairwise(delays)):
        raise ValueError(
            f"{who}: got the delays {list(delays)}, expected numbers that never decrease, as what has been read stays "
            "read. Give the delays in the order in which the words were written."
        )

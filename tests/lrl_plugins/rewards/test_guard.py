import threading
import time

import pytest
import torch

from lrl_core.interfaces import Reward, bind_all
from lrl_core.registry import PluginError
from lrl_core.scoring import count_unjudged, judge
from lrl_core.testing.rewards import check_reward, example_rollout, facts_of
from lrl_core.types import RewardSignal
from lrl_plugins.rewards import guard
from lrl_plugins.rewards.bleu import BLEU
from lrl_plugins.rewards.cider import CIDErD
from lrl_plugins.rewards.guard import Guard
from lrl_plugins.rewards.normalise import BatchStandardise, Standardise
from lrl_plugins.rewards.sum import Sum

ROLLOUT = example_rollout()
ROWS, STEPS = ROLLOUT.tokens.shape
NAN = float("nan")
NAMED = f"{{}} ({__name__.partition('.')[0]})"  # a class that no package registers is named with its module
POLICIES = ["mask", "retry", "raise"]


def places(rollout):
    """Which rows of the example these are."""
    return [ROLLOUT.texts.index(text) for text in rollout.texts]


class Faulty(Reward):
    """Counts its calls; row i is worth i + 1, so that a zero would be seen."""

    def __init__(self, rowwise=True):
        super().__init__()
        self.calls, self.rowwise = [], rowwise

    def score(self, rollout):
        self.calls.append(places(rollout))
        return self.answer(rollout)

    def answer(self, rollout):
        values = torch.tensor([float(place + 1) for place in places(rollout)])
        real = torch.arange(STEPS) < rollout.lengths[:, None]
        spread = torch.where(real, values[:, None] / rollout.lengths[:, None], 0.0)
        prefixes = values[:, None].expand(-1, STEPS + 1)
        return RewardSignal(values, by_token=spread, by_prefix=prefixes, parts={"one": values, "two": 2 * values})


class Hangs(Faulty):
    """Never answers, until the test lets it go."""

    def __init__(self, only=None, **arguments):
        super().__init__(**arguments)
        self.only, self.release = only, threading.Event()

    def answer(self, rollout):
        if self.only is None or self.only == places(rollout):
            self.release.wait(20)
        return super().answer(rollout)


class EveryThird(Faulty):
    """Cannot bear the third and the sixth row."""

    def answer(self, rollout):
        if any(place % 3 == 2 for place in places(rollout)):
            raise ZeroDivisionError("no words")
        return super().answer(rollout)


class TooFew(Faulty):
    """One value too few."""

    def answer(self, rollout):
        return RewardSignal(torch.ones(len(rollout) - 1))


@pytest.fixture
def hangs():
    made = Hangs()
    yield made
    made.release.set()


@pytest.mark.parametrize(
    "arguments", [{}, {"time_limit": 20.0}, {"time_limit": 20.0, "normalise": Standardise()}, {"on_failure": "raise"}]
)
def test_conforms(arguments):
    check_reward(lambda: Guard(CIDErD(), **arguments))


def test_conforms_with_a_batch_normaliser():
    check_reward(lambda: Guard(BLEU(), normalise=BatchStandardise()))
    assert not Guard(BLEU(), normalise=BatchStandardise()).rowwise
    assert not Guard(BLEU(), normalise=Standardise()).comparable
    assert Guard(BLEU()).comparable
    assert not Guard(Faulty(rowwise=False)).rowwise


@pytest.mark.parametrize("limit", [None, 20.0])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_sound_reward_is_left_as_it_is(policy, limit):
    inner = Faulty()
    signal, bare = judge(Guard(inner, limit, policy), ROLLOUT), inner.answer(ROLLOUT)
    assert len(inner.calls) == 1
    for field in ("total", "by_token", "by_prefix"):
        assert torch.equal(getattr(signal, field), getattr(bare, field))
    assert signal.parts.keys() == bare.parts.keys()


@pytest.mark.parametrize(("policy", "calls"), [("mask", 1), ("retry", 3)])
def test_a_reward_that_hangs_costs_its_batch(hangs, policy, calls, caplog):
    began = time.monotonic()
    signal = judge(Guard(hangs, 0.1, policy), ROLLOUT)
    assert time.monotonic() - began < 5
    assert signal.total.isnan().all()
    assert len(hangs.calls) == calls
    assert f"{NAMED.format('Hangs')}, attempt {calls} of {calls}: no answer within 0.1 seconds" in caplog.text
    assert "all 6 episodes of the batch are NaN" in caplog.text


def test_a_reward_that_hangs_stops_the_run_if_that_is_wanted(hangs):
    with pytest.raises(PluginError, match=r"Hangs \(.*\): no answer within 0.1 seconds; expected .* raise time_limit"):
        judge(Guard(hangs, 0.1, "raise"), ROLLOUT)


@pytest.mark.parametrize("limit", [None, 20.0])
@pytest.mark.parametrize(("policy", "attempts"), [("mask", 1), ("retry", 3)])
def test_a_reward_that_raises_costs_only_the_rows_that_fail(policy, attempts, limit, caplog):
    inner = EveryThird()
    signal = judge(Guard(inner, limit, policy), ROLLOUT)
    assert signal.total.nan_to_num(-9).tolist() == [1, 2, -9, 4, 5, -9]
    assert inner.calls == [list(range(6))] * attempts + [[row] for row in range(6)]
    sound = [0, 1, 3, 4]
    bare = Faulty().answer(ROLLOUT)
    assert torch.equal(signal.by_token[sound], bare.by_token[sound])
    assert torch.equal(signal.by_prefix[sound], bare.by_prefix[sound])
    assert signal.parts["two"].nan_to_num(-9).tolist() == [2, 4, -9, 8, 10, -9]
    assert f"{NAMED.format('EveryThird')}, episode 2 is NaN: failed while scoring 1 episodes: ZeroDiv" in caplog.text


def test_a_reward_that_compares_rows_costs_the_batch():
    inner = EveryThird(rowwise=False)
    assert count_unjudged(judge(Guard(inner), ROLLOUT)) == 6
    assert len(inner.calls) == 1


def test_a_reward_that_raises_stops_the_run_if_that_is_wanted():
    with pytest.raises(PluginError, match=r"EveryThird \(.*\) failed while scoring 6 .*ZeroDivisionError: no words"):
        judge(Guard(EveryThird(), on_failure="raise"), ROLLOUT)


@pytest.mark.parametrize("limit", [None, 20.0])
@pytest.mark.parametrize("policy", ["mask", "retry"])
def test_too_few_values_are_a_failure_as_well(shapes_unchecked, policy, limit, caplog):
    signal = judge(Guard(TooFew(), limit, policy), ROLLOUT)
    assert signal.total.isnan().all()
    assert "returned total of shape [5]" in caplog.text


def test_too_few_values_stop_the_run_if_that_is_wanted(shapes_unchecked):
    with pytest.raises(PluginError, match=r"TooFew \(.*\) returned total of shape \[5\]"):
        judge(Guard(TooFew(), on_failure="raise"), ROLLOUT)


def test_a_retry_that_succeeds_is_taken():
    class Once(Faulty):
        def answer(self, rollout):
            if len(self.calls) < 3:
                raise OSError("busy")
            return super().answer(rollout)

    assert judge(Guard(Once(), on_failure="retry"), ROLLOUT).total.tolist() == [1, 2, 3, 4, 5, 6]
    assert judge(Guard(Once(rowwise=False), on_failure="retry", retries=1), ROLLOUT).total.isnan().all()


def test_row_by_row_ends_with_the_time_limit(caplog):
    class Both(EveryThird, Hangs):
        """The batch raises, row 3 hangs."""

    inner = Both(only=[3])
    signal = judge(Guard(inner, 0.5), ROLLOUT)
    inner.release.set()
    assert signal.total.nan_to_num(-9).tolist() == [1, 2, -9, -9, -9, -9]
    assert "episodes 3 to 5 are NaN" in caplog.text


def test_calls_that_hang_do_not_pile_up(hangs, monkeypatch, caplog):
    monkeypatch.setattr(guard, "MOST_HANGING", 2)
    guarded = Guard(hangs, 0.05)
    for _ in range(4):
        judge(guarded, ROLLOUT)
    assert len(hangs.calls) == 2
    assert "2 earlier calls have not come back" in caplog.text
    hangs.release.set()
    time.sleep(0.2)
    assert judge(guarded, ROLLOUT).total.tolist() == [1, 2, 3, 4, 5, 6]  # and it recovers


def test_the_thread_works_under_the_modes_of_the_caller():
    class Modes(Faulty):
        def answer(self, rollout):
            self.modes = (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), threading.current_thread().daemon)
            return super().answer(rollout)

    inner = Modes()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        judge(Guard(inner, 20.0), ROLLOUT)
    assert inner.modes == (False, True, True)
    judge(Guard(inner, 20.0), ROLLOUT)
    assert inner.modes == (True, False, True)


def test_raw_and_normalised_rewards_are_logged_and_failures_have_no_say():
    signal = judge(Guard(EveryThird(), normalise=BatchStandardise()), ROLLOUT)
    expected = [(value - 3) / 2.5**0.5 for value in (1, 2, 4, 5)]  # mean 3, population variance 10 / 4
    sound = [0, 1, 3, 4]
    assert signal.total[sound].tolist() == pytest.approx(expected)
    assert signal.total[[2, 5]].isnan().all()
    assert signal.parts.keys() == {"EveryThird", "EveryThird/normalised", "EveryThird/one", "EveryThird/two"}
    assert signal.parts["EveryThird"][sound].tolist() == [1, 2, 4, 5]
    assert torch.equal(signal.parts["EveryThird/normalised"][sound], signal.total[sound])
    assert signal.by_token[sound].sum(1).tolist() == pytest.approx(expected, abs=1e-5)


def test_a_batch_that_failed_leaves_the_running_values_alone(hangs):
    guarded = Guard(hangs, 0.1, normalise=Standardise())
    assert judge(guarded, ROLLOUT).total.isnan().all()
    assert not guarded.normalise.seen


def test_a_guarded_term_leaves_the_sum_unjudged_where_it_failed():
    reward = Sum({"faulty": Guard(EveryThird()), "bleu": BLEU()})
    bind_all(reward, facts_of(ROLLOUT))
    assert judge(reward, ROLLOUT).total.isnan().tolist() == [False, False, True] * 2
    logged = Sum({"faulty": Guard(EveryThird()), "bleu": BLEU()}, {"faulty": 0.0})
    assert judge(logged, ROLLOUT).total.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_failure": "zero"}, "expected one of raise, mask, retry"),
        ({"time_limit": 0.0}, "time_limit > 0"),
        ({"retries": -1}, "retries >= 0"),
        ({"reward": Sum({"bleu": BLEU()}, normalise={"bleu": Standardise()})}, "expected the normaliser outside"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Guard(**{"reward": BLEU()} | arguments)

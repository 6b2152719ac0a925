"""The alarm on made-up curves, and in a run whose reward pays for the wrong thing."""

import math

import pytest
import torch

from lrl_core.testing.toy import TableReward
from lrl_plugins.callbacks.reward_hacking_alarm import RewardHackingAlarm, Trend
from lrl_plugins.policies.recurrent import Recurrent


def counts(direction, metrics, rewards, change=0.02):
    trend, seen = Trend(direction), []
    for metric, reward in zip(metrics, rewards, strict=True):
        trend.see(metric, reward, change)
        seen.append(trend.validations)
    return seen


def test_over_optimisation_is_counted_from_the_peak():
    """Quality rises, peaks and falls while the reward goes on rising."""
    assert counts("max", [0.5, 0.6, 0.7, 0.65, 0.6, 0.4], [1, 2, 3, 4, 5, 6]) == [0, 0, 0, 1, 2, 3]


def test_less_is_better_where_it_is_said():
    assert counts("min", [9, 8, 10, 11], [1, 2, 3, 4]) == [0, 0, 1, 2]
    assert counts("max", [9, 8, 7, 6], [1, 2, 3, 4]) == [0, 1, 2, 3]


def test_no_alarm_while_both_rise_or_both_fall_or_little_changes():
    assert counts("max", [1, 2, 3, 4], [1, 2, 3, 4]) == [0, 0, 0, 0]
    assert counts("max", [4, 3, 2, 1], [4, 3, 2, 1]) == [0, 0, 0, 0]
    assert counts("max", [1, 0.99, 0.985], [1, 2, 3]) == [0, 0, 0]
    assert counts("max", [4, 3, 2], [1, 1.01, 1.015]) == [0, 0, 0]


def test_negative_rewards_rise_towards_zero():
    assert counts("max", [4, 3, 2], [-9, -5, -1]) == [0, 1, 2]
    assert counts("max", [4, 3, 2], [-1, -5, -9]) == [0, 0, 0]


def test_recovery_ends_the_alarm():
    assert counts("max", [1, 0.8, 0.7, 0.99, 0.8, 0.7], [1, 2, 3, 4, 5, 6]) == [0, 1, 2, 0, 1, 2]


def test_the_best_before_reinforcement_counts_too():
    """No reward under maximum likelihood: the first one that is known stands for that time."""
    assert counts("max", [1, 0.9, 0.8, 0.7], [None, 2, 3, 4]) == [0, 0, 1, 2]


def run_with(short_run, alarm, curve, **options):
    """A run in which `val/other` follows a made-up curve."""
    scores = iter(curve)
    compute = type(alarm).on_validation_end

    class Scripted(RewardHackingAlarm):
        def on_validation_end(self, trainer, pl_module):
            trainer.callback_metrics["val/other"] = torch.tensor(next(scores))
            compute(self, trainer, pl_module)
            seen.append(float(trainer.callback_metrics["alarm/reward_hacking"]))

    seen = []
    scripted = Scripted(alarm.metrics, alarm.directions, alarm.patience, alarm.change)
    short_run(scripted, epochs=len(curve), **options)
    return scripted, seen


LEARNS = {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.05)}


def test_warns_once_per_onset_and_logs_the_state(short_run, tmp_path):
    alarm = RewardHackingAlarm(metrics=["val/other"])
    curve = [0.9, 0.8, 0.7, 0.6, 0.95, 0.9]
    with pytest.warns(UserWarning, match=r"val/other went from 0.9 to 0.7 \(max is better\)") as caught:
        _, seen = run_with(short_run, alarm, curve, **LEARNS)
    assert seen == [0, 0, 1, 1, 0, 0]
    assert len([warning for warning in caught if "RewardHackingAlarm" in str(warning.message)]) == 1
    assert "alarm/reward_hacking" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]


@pytest.mark.filterwarnings("ignore:RewardHackingAlarm")
def test_watches_what_is_not_the_reward_and_perplexity_only_on_request(short_run):
    class Exact(TableReward):
        """Has the name of the toy task's metric."""

    reward = {"reward": Exact(lambda tokens: float(tokens.count(0)))}
    curve = [0.5, 0.5]
    assert set(run_with(short_run, RewardHackingAlarm(), curve)[0].trends) == {"val/exact", "val/other"}
    assert set(run_with(short_run, RewardHackingAlarm(), curve, **reward)[0].trends) == {"val/other"}
    asked = RewardHackingAlarm(directions={"val/perplexity": "min"})
    trends = run_with(short_run, asked, curve, **reward)[0].trends
    assert {name: trend.direction for name, trend in trends.items()} == {"val/other": "max", "val/perplexity": "min"}


def test_rewards_are_means_since_the_last_validation(short_run):
    """The reward of epoch e is e + 1: three steps of 12 episodes each; unjudged ones do not count."""
    calls = []

    def pays(tokens):
        calls.append(0)
        return float("nan") if len(calls) % 2 else 1.0 + (len(calls) - 1) // 36

    alarm = RewardHackingAlarm(["val/other"], patience=1)
    with pytest.warns(UserWarning, match="the training reward rose from 1 to 3 while val/other went from 3 to 2"):
        _, seen = run_with(short_run, alarm, [3.0, math.nan, 2.0, 1.0], reward=TableReward(pays))
    assert seen == [0, 0, 1, 1]


def test_state_survives_a_resumed_run(short_run, tmp_path):
    alarm = RewardHackingAlarm(["val/exact"])
    alarm.trends = {"val/exact": Trend("max", best=2.0, reward_then=-1.0, validations=1)}
    alarm.earned = [3.0, 4.0]
    fresh = RewardHackingAlarm(["val/exact"])
    fresh.load_state_dict(alarm.state_dict())
    assert fresh.trends == alarm.trends
    assert fresh.earned == [3.0, 4.0]
    with pytest.warns(UserWarning, match="RewardHackingAlarm: the training reward rose from -1"):
        short_run(fresh, epochs=1)


def test_a_metric_that_is_not_logged_is_named(short_run):
    with pytest.raises(ValueError, match=r"nothing is logged as val/exat; expected some of val/exact"):
        short_run(RewardHackingAlarm(metrics=["val/exat"]), epochs=1, policy=Recurrent(embedding=4, hidden=4))


def test_refuses_no_patience():
    with pytest.raises(ValueError, match="expected patience >= 1"):
        RewardHackingAlarm(patience=0)

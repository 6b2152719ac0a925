"""What is remembered of each prompt, when, by whom, and for how long."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from lrl_core.testing.parts import check_baseline, toy_experience
from lrl_core.testing.toy import ToySampler, tree_world
from lrl_core.types import Experience
from lrl_plugins.baselines import moving_average
from lrl_plugins.baselines.moving_average import MovingAverage, from_every_rank
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce

NAN = float("nan")


def step(groups, rewards):
    """An experience of four episodes with these prompts and rewards."""
    experience = toy_experience()
    prompts = replace(experience.rollout.prompts, group=torch.tensor(groups))
    total = torch.tensor(rewards, dtype=torch.float64)
    return replace(
        experience,
        rollout=replace(experience.rollout, prompts=prompts),
        reward=replace(experience.reward, total=total),
    )


def compared(baseline, groups):
    policy, judge = tree_world()
    asked = step(groups, [0.0] * 4)
    value = baseline.advantage(asked.rollout, asked.reward, ToySampler(policy, Sample(), judge)).value
    return (-value[:, 0]).tolist()


def test_each_prompt_has_its_own_mean_and_a_new_one_that_of_all():
    baseline = MovingAverage()
    assert compared(baseline, [7, 7, 9, 9]) == [0, 0, 0, 0]
    baseline.learned(step([7, 7, 9, 9], [1.0, 3.0, NAN, 10.0]))
    baseline.learned(step([7, 8, 8, 9], [5.0, 1.0, 2.0, NAN]))
    assert compared(baseline, [7, 8, 9, 1]) == pytest.approx([3, 1.5, 10, 22 / 6])
    assert compared(MovingAverage(initial=4.0), [7, 8, 9, 1]) == [4, 4, 4, 4]


def test_decay_forgets():
    baseline = MovingAverage(decay=0.75)
    for reward in (1.0, 3.0, 7.0):
        baseline.learned(step([7, 7, 7, 7], [reward, reward - 1, reward + 1, NAN]))
    assert compared(baseline, [7] * 4)[0] == pytest.approx(0.75 * (0.75 * 1 + 0.25 * 3) + 0.25 * 7)


def test_asking_does_not_change_it_and_human_answers_teach_it_nothing():
    baseline = MovingAverage()
    check = compared(baseline, [7] * 4)
    baseline.learned(Experience(expert=toy_experience().expert))
    assert compared(baseline, [7] * 4) == check
    check_baseline(lambda: MovingAverage(initial=1.0), Reinforce(), Sample(max_length=2, samples=2))


def test_memory_is_bounded_and_the_prompt_seen_longest_ago_goes_first():
    baseline = MovingAverage(capacity=2, initial=0.0)
    baseline.learned(step([1, 1, 2, 2], [1.0, 1.0, 2.0, 2.0]))
    baseline.learned(step([1, 1, 3, 3], [1.0, 1.0, 3.0, 3.0]))
    assert compared(baseline, [1, 2, 3, 4]) == [1, 0, 3, 0]


def test_the_memory_travels_in_a_checkpoint_of_any_size():
    baseline = MovingAverage(capacity=2)
    baseline.learned(step([1, 1, 2, 2], [1.0, 3.0, 2.0, 8.0]))
    file = io.BytesIO()
    torch.save(torch.nn.ModuleDict({"baseline": baseline}).state_dict(), file)
    file.seek(0)
    again = MovingAverage(capacity=2)
    again.learned(step([5, 5, 5, 5], [9.0] * 4))
    torch.nn.ModuleDict({"baseline": again}).load_state_dict(torch.load(file, weights_only=True))
    assert compared(again, [1, 2, 5, 6]) == compared(baseline, [1, 2, 5, 6]) == [2, 5, 3.5, 3.5]
    for one in (baseline, again):
        one.learned(step([3, 3, 3, 3], [1.0] * 4))
    assert compared(again, [1, 2, 3, 4]) == compared(baseline, [1, 2, 3, 4])


def in_two_ranks(monkeypatch, work):
    """Run `work(rank)` in two threads that add up their tensors as two processes would."""
    here, barrier, brought = threading.local(), threading.Barrier(2, timeout=20), {}

    def sum_over_ranks(values):
        brought[here.rank] = values
        barrier.wait()
        total = brought[0] + brought[1]
        barrier.wait()
        return total

    def entered(rank):
        here.rank = rank
        return work(rank)

    monkeypatch.setattr(moving_average, "world_size", lambda: 2)
    monkeypatch.setattr(moving_average, "rank", lambda: here.rank)
    monkeypatch.setattr(moving_average, "sum_over_ranks", sum_over_ranks)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(entered, [0, 1]))


def test_every_rank_hears_of_all(monkeypatch):
    rewards = {0: ([7, 7, 9, 9], [1.0, 3.0, NAN, 10.0]), 1: ([5, 5, 7, 6], [NAN, NAN, 8.0, NAN])}
    ranks = [MovingAverage(), MovingAverage()]
    in_two_ranks(monkeypatch, lambda rank: ranks[rank].learned(step(*rewards[rank])))
    for baseline in ranks:
        assert compared(baseline, [7, 9, 5, 6]) == pytest.approx([4, 10, 22 / 4, 22 / 4])
    states = [baseline.get_extra_state() for baseline in ranks]
    assert all(states[0][name].equal(states[1][name]) for name in states[0])


def test_ranks_without_any_rows_take_part(monkeypatch):
    rows = {0: torch.tensor([[1, 2], [3, 4]]), 1: torch.zeros(0, 2, dtype=torch.long)}
    got = in_two_ranks(monkeypatch, lambda rank: from_every_rank(rows[rank]).tolist())
    assert got == [[[1, 2], [3, 4]]] * 2


@pytest.mark.parametrize("options", [{"decay": 1.0}, {"capacity": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="MovingAverage: "):
        MovingAverage(**options)

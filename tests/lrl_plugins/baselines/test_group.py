"""GRPO's and its kin's comparisons: hand-made numbers, and what they do to the expected gradient."""

import pytest
import torch

from lrl_core.testing.parts import check_baseline, toy_experience
from lrl_core.testing.toy import ToySampler, toy_prompts, tree_world
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.baselines.group import GroupMean, LengthWeighted
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce

NAN = float("nan")


def episodes(groups, lengths=None):
    prompts = toy_prompts(len(groups))
    lengths = torch.tensor(lengths or [1] * len(groups))
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return Rollout(
        prompts=type(prompts)(prompts.tokens, prompts.lengths, torch.tensor(groups)),
        tokens=torch.zeros(mask.shape, dtype=torch.long),
        lengths=lengths,
        action_mask=mask,
        logprobs=torch.zeros(mask.shape, dtype=torch.float64),
        terminated=torch.ones(len(groups), dtype=torch.bool),
    )


def advantages(baseline, rewards, groups=None, lengths=None):
    policy, judge = tree_world()
    rollout = episodes(groups or [5] * len(rewards), lengths)
    reward = RewardSignal(torch.tensor(rewards, dtype=torch.float64))
    return baseline.advantage(rollout, reward, ToySampler(policy, Sample(samples=2), judge)).value[:, 0].tolist()


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1, 0, 0, 1], [0.865875, -0.865875, -0.865875, 0.865875]),
        ([1, 0, 0, 0], [1.4997, -0.4999, -0.4999, -0.4999]),
        ([3, 3, 3], [0, 0, 0]),  # nothing to learn from samples that all earned the same
        ([1, NAN, 0, 0, 1], [0.865875, 0, -0.865875, -0.865875, 0.865875]),
        ([7, NAN], [0, 0]),  # the only judged one of several
        ([7], [7]),  # sampled once: compared with nothing
    ],
)
def test_group_scale_by_hand(rewards, expected):
    assert advantages(GroupMean("group"), rewards) == pytest.approx(expected, abs=1e-6)


def test_groups_do_not_mix_and_need_not_stand_together():
    got = advantages(GroupMean(), [1, 10, 2, 20], groups=[4, 9, 4, 9])
    assert got == [-0.5, -5, 0.5, 5]


def test_batch_scale_divides_by_the_spread_of_all_judged_rewards():
    got = advantages(GroupMean("batch", epsilon=1e-12), [1, 3, 10, NAN, 14, 2], groups=[4, 4, 9, 9, 9, 6])
    spread = torch.tensor([1.0, 3, 10, 14, 2]).std().item()
    assert got == pytest.approx([-1 / spread, 1 / spread, -2 / spread, 0, 2 / spread, 2])


def test_group_mean_is_the_shrunk_leave_one_out():
    rewards = [1.0, 4.0, 2.5, 0.5]
    shrunk = [value * 3 / 4 for value in advantages(LeaveOneOut(), rewards)]
    assert advantages(GroupMean(), rewards) == pytest.approx(shrunk)


def test_leave_one_out_by_hand():
    assert advantages(LeaveOneOut(), [1, 0, 0, 1]) == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    assert advantages(LeaveOneOut(), [1, 0, 0, 0]) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])


def test_long_samples_weigh_more():
    got = advantages(LengthWeighted(), [1.0, 0.0, 8.0, NAN], groups=[4, 4, 9, 4], lengths=[3, 1, 2, 4])
    assert got == pytest.approx([1 - 3 / 4, -3 / 4, 0, 0])


@pytest.mark.parametrize("make", [GroupMean, LengthWeighted])
def test_the_sample_itself_shrinks_the_expected_gradient_by_half(make):
    check_baseline(make, Reinforce(), Sample(max_length=2, samples=2), 0.5)


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_unjudged_rows_and_an_environments_words_get_nothing(scale):
    experience = toy_experience()
    policy, judge = tree_world()
    value = GroupMean(scale).advantage(experience.rollout, experience.reward, ToySampler(policy, Sample(), judge)).value
    assert value.isfinite().all()
    assert (value[~experience.learn_mask] == 0).all()
    assert (value[experience.learn_mask] != 0).any()


@pytest.mark.parametrize("options", [{"scale": "std"}, {"epsilon": 0.0}])
def test_options_that_make_no_sense_are_refused(options, shapes_unchecked):
    with pytest.raises(ValueError, match="GroupMean: "):
        GroupMean(**options)

import pytest
import torch

from lrl_core.functional import (
    aggregate,
    aggregation_count,
    by_group,
    credit,
    generalised_advantage,
    group_mean,
    group_std,
    leave_one_out_mean,
    masked_mean,
    reward_to_go,
    squared_error,
    token_rewards,
)
from lrl_core.masks import length_mask
from lrl_core.testing.parts import toy_experience
from lrl_core.types import RewardSignal

T, F = True, False


def test_length_mask():
    assert length_mask(torch.tensor([4, 2, 0]), 4).tolist() == [[T] * 4, [T, T, F, F], [F] * 4]


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.tensor([1.0, 5.0]), torch.tensor([F, F])) == 0
    assert masked_mean(torch.tensor([1.0, torch.nan, 5.0]), torch.tensor([T, F, T])) == 3


@pytest.mark.parametrize(
    ("mode", "loss"),
    [
        ("token-mean", (1 + 2 + 3 + 4) / 4),
        ("seq-mean-token-mean", (2 + 4) / 2),
        ("seq-mean-token-sum", (6 + 4) / 2),
        ("seq-mean-token-sum-norm", (6 + 4) / 2 / 5),
    ],
)
def test_aggregations_by_hand(mode, loss):
    losses = torch.tensor([[1.0, 2, 3], [4, 9, 9], [7, 7, 7]])
    mask = torch.tensor([[T, T, T], [T, F, F], [F, F, F]])  # the third episode does not count
    assert (aggregate(losses, mask, mode, 5) / aggregation_count(mask, mode)).item() == pytest.approx(loss)


def test_reward_to_go_with_and_without_discount():
    rewards, mask = torch.tensor([[1.0, 2, 4, 8]]), torch.tensor([[T, T, T, F]])
    assert reward_to_go(rewards, mask).tolist() == [[7, 6, 4, 0]]
    assert reward_to_go(rewards, mask, 0.5).tolist() == [[3, 4, 4, 0]]


def test_gae_with_lambda_one_is_return_minus_value():
    rewards, values = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.25, 0.5, 0.75]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert generalised_advantage(rewards, values, mask).tolist() == [[0.75, 0.5, 0.25]]
    assert generalised_advantage(rewards, values, mask, lam=0.0).tolist() == [[0.25, 0.25, 0.25]]


def test_gae_steps_over_the_environments_words():
    rewards, values = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.25, 99.0, 0.75]])
    mask = torch.tensor([[T, F, T]])
    assert generalised_advantage(rewards, values, mask, lam=0.0).tolist() == [[0.5, 0, 0.25]]


def test_gae_of_a_cut_episode_bootstraps():
    one = torch.ones(1, 1)
    got = generalised_advantage(one, one * 0.5, one.bool(), gamma=0.9, bootstrap=torch.tensor([2.0]))
    assert got.item() == pytest.approx(1 + 0.9 * 2 - 0.5)


def test_leave_one_out_by_group_and_judged_rows():
    values = torch.tensor([1.0, 3.0, torch.nan, 10.0, 5.0, 7.0])
    group = torch.tensor([4, 4, 4, 8, 9, 9])
    judged = ~values.isnan()
    others = leave_one_out_mean(values, group, judged)
    assert others[[0, 1, 4, 5]].tolist() == [3, 1, 7, 5]
    assert others[3] == 10  # nothing to compare with: advantage 0


def test_leave_one_out_is_the_rescaled_mean_difference():
    values = torch.tensor([1.0, 4.0, 2.5, 0.5])
    others = leave_one_out_mean(values, torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool))
    assert torch.allclose(values - others, (values - values.mean()) * 4 / 3)


def test_means_and_spreads_of_groups():
    values = torch.tensor([1.0, 10.0, torch.nan, 3.0, torch.nan, 5.0])
    group = torch.tensor([4, 9, 4, 4, 6, 4])
    judged = ~values.isnan()
    assert group_mean(values, group, judged).tolist() == [3, 10, 3, 3, 0, 3]
    weights = torch.tensor([2.0, 1.0, 9.0, 1.0, 1.0, 0.0])
    assert group_mean(values, group, judged, weights)[0].item() == pytest.approx(5 / 3)
    assert group_std(values, group, judged).tolist() == [2, 0, 2, 2, 0, 2]


def test_token_rewards_stand_on_chosen_tokens():
    """The first episode has an environment's word in its second place, the second one cannot be judged."""
    experience = toy_experience()
    whole = token_rewards(experience.rollout, experience.reward)
    assert whole.tolist() == [[0, 0, 0, 1], [0] * 4, [0, 0, 0.25, 0], [0, 0, 0, 2]]
    by_token = torch.tensor([[1.0, 2, 3, 4], [1, 1, 0, 0], [1, 1, 1, 9], [0, 0, 2, 1]], dtype=torch.float64)
    paid = RewardSignal(torch.tensor([10.0, torch.nan, 3, 3], dtype=torch.float64), by_token=by_token)
    assert token_rewards(experience.rollout, paid).tolist() == [[3, 0, 3, 4], [0] * 4, [1, 1, 1, 0], [0, 0, 2, 1]]
    assert credit(experience.rollout, paid)[0].tolist() == [10, 9, 7, 4]
    assert credit(experience.rollout, experience.reward)[0].tolist() == [1] * 4


def test_squared_error_held_near_what_it_was():
    values, targets = torch.tensor([[1.0, 1.0, 0.5]]), torch.tensor([[2.0, 0.0, 2.0]])
    before = torch.tensor([[0.5, 0.5, 0.5]])
    assert squared_error(values, targets).tolist() == [[0.5, 0.5, 1.125]]
    held = squared_error(values, targets, before, 0.25)
    assert held.tolist() == [[1.25**2 / 2, 0.5, 1.125]]


def test_values_by_group_keep_groups_without_any():
    values = torch.tensor([1.5, torch.nan, 2.0, 1.5, torch.nan])
    group = torch.tensor([7, 3, 7, 9, 9])
    assert by_group(values, group, ~values.isnan()) == {7: [1.5, 2.0], 3: [], 9: [1.5]}

import multiprocessing

import pytest
import torch
import torch.distributed

from lrl_core.testing.parts import toy_experience
from lrl_core.testing.toy import TableReward
from lrl_core.types import RewardSignal
from lrl_plugins.rewards.combine import combined
from lrl_plugins.rewards.normalise import BatchStandardise, Clip, Standardise
from lrl_plugins.rewards.sum import Sum

NAN = float("nan")


def apply(normaliser, total):
    return normaliser(total)(total)


def test_batch_values_have_mean_zero_and_spread_one():
    values = apply(BatchStandardise(), torch.tensor([1.0, 3.0, NAN, 5.0, 7.0]))
    # Mean 4, population variance 5.
    expected = [(x - 4) / 5**0.5 for x in (1, 3, 5, 7)]
    assert values[[0, 1, 3, 4]].tolist() == pytest.approx(expected)
    assert values[2].isnan()


@pytest.mark.parametrize("make", [Standardise, BatchStandardise])
def test_the_floor_keeps_equal_rewards_small(make):
    values = apply(make(floor=0.1), torch.tensor([2.0, 2.0, 2.0002]))
    assert values.abs().max() < 0.002


@pytest.mark.parametrize("make", [Standardise, BatchStandardise])
def test_a_batch_that_nobody_could_judge_changes_nothing(make):
    scale, shift, *_ = make()(torch.tensor([NAN, NAN]))
    assert scale.isfinite()
    assert shift == 0


def test_running_values_by_hand():
    normaliser = Standardise(decay=0.5)
    apply(normaliser, torch.tensor([0.0, 2.0]))  # mean 1, variance 1
    values = apply(normaliser, torch.tensor([5.0, 5.0, NAN]))
    # Half the weight on {0, 2}, half on {5, 5}: mean 3, variance (9 + 1) / 4 + 4 / 2 = 4.5.
    assert normaliser.mean.item() == pytest.approx(3)
    assert normaliser.variance.item() == pytest.approx(4.5)
    assert values[0].item() == pytest.approx(2 / 4.5**0.5)


def test_running_values_forget():
    normaliser = Standardise(decay=0.9)
    generator = torch.Generator().manual_seed(0)
    normaliser(torch.full((50,), 100.0))
    for _ in range(200):
        normaliser(3 + 2 * torch.randn(500, generator=generator))
    assert normaliser.mean.item() == pytest.approx(3, abs=0.1)
    assert normaliser.variance.sqrt().item() == pytest.approx(2, abs=0.1)


def test_large_means_do_not_drown_the_spread():
    normaliser = Standardise()
    normaliser(torch.tensor([10000.0, 10002.0]))
    assert normaliser.variance.item() == pytest.approx(1)


def test_running_values_stand_still_outside_training():
    normaliser = Standardise().eval()
    assert normaliser(torch.tensor([5.0, 9.0]))[:2] == (1, 0)
    normaliser.train()(torch.tensor([5.0, 9.0]))
    normaliser.eval()(torch.tensor([500.0]))
    assert normaliser.mean.item() == 7


def test_state_dict_restores_the_running_values():
    first, second = Standardise(), Standardise()
    first(torch.tensor([1.0, 4.0]))
    second.load_state_dict(first.state_dict())
    values = torch.tensor([3.0])
    assert second.eval()(values) == first.eval()(values)


@pytest.mark.parametrize("make", [Standardise, BatchStandardise])
def test_the_mean_is_kept_by_option(make):
    values = apply(make(shift=False), torch.tensor([1.0, 3.0, NAN, 5.0, 7.0]))
    assert values[[0, 1, 3, 4]].tolist() == pytest.approx([x / 5**0.5 for x in (1, 3, 5, 7)])


@pytest.mark.parametrize("make", [Standardise, BatchStandardise])
def test_what_is_normalised_is_held_by_option(make):
    values = apply(make(clip=1.0), torch.tensor([1.0, 3.0, NAN, 5.0, 7.0]))
    assert values[[0, 1, 3, 4]].tolist() == pytest.approx([-1, -(5**-0.5), 5**-0.5, 1])


def test_clip_holds_rewards_and_leaves_unjudged_ones():
    values = apply(Clip(-2, 3), torch.tensor([-7.0, -2.0, 0.5, NAN, 4.0]))
    assert values[[0, 1, 2, 4]].tolist() == [-2, -2, 0.5, 3]
    assert values[3].isnan()


def test_the_last_token_makes_up_for_what_is_clipped():
    """Increments 2, 3 and 4 of an episode of three tokens are 9 in all; of at most 5 the last one pays 4 - 4."""
    rollout = toy_experience().rollout.select(torch.tensor([2]))
    assert int(rollout.lengths[0]) == 3
    by_token = torch.tensor([[2.0, 3.0, 4.0, 0.0]])
    by_prefix = torch.tensor([[0.0, 2.0, 5.0, 9.0, 9.0]])
    signal = RewardSignal(by_token.sum(1), by_token=by_token, by_prefix=by_prefix)
    one = combined({"one": signal}, {"one": Clip()(signal.total)}, {"one": 2.0}, rollout)
    assert one.total.tolist() == [10]
    assert one.by_token.tolist() == [[4, 6, 0, 0]]
    assert one.by_prefix.tolist() == [[0, 4, 10, 10, 10]]
    assert one.parts["one/normalised"].tolist() == [5]


def test_clipped_rewards_can_be_compared_with_those_of_a_rival():
    term = TableReward(lambda tokens: 0.0)
    assert Sum({"one": term}, normalise={"one": Clip()}).comparable
    assert not Sum({"one": term}, normalise={"one": Standardise()}).comparable


@pytest.mark.parametrize("make", [lambda: Clip(1, 1), lambda: Standardise(clip=0.0), lambda: BatchStandardise(clip=-1)])
def test_impossible_limits_are_refused(make):
    with pytest.raises(ValueError, match=r"expected (low < high|a number > 0)"):
        make()


@pytest.mark.parametrize(
    "make", [lambda: Standardise(decay=1.0), lambda: Standardise(floor=0.0), lambda: BatchStandardise(floor=-1.0)]
)
def test_impossible_arguments_are_refused(make):
    with pytest.raises(ValueError, match="expected a number"):
        make()


def one_rank(rank, meeting_point, answers):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
    half = torch.tensor([[1.0, 3.0, NAN], [5.0, 7.0, 9.0]][rank])
    maps = [make()(half) for make in (Standardise, BatchStandardise)]
    answers.put([(affine.scale.item(), affine.shift.item()) for affine in maps])
    torch.distributed.destroy_process_group()


def test_two_ranks_standardise_as_one(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    ranks = [context.Process(target=one_rank, args=(rank, tmp_path / "meet", answers)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=60)
        assert rank.exitcode == 0
    # All five: mean 5, population variance 8.
    for maps in (answers.get(), answers.get()):
        assert maps == [pytest.approx((8**-0.5, -5 * 8**-0.5))] * 2

"""Every way to break the contract is refused by name; nothing is broadcast, rounded or guessed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lrl_core.interfaces import Reward
from lrl_core.registry import origin
from lrl_core.scoring import PluginError, count_unjudged, judge
from lrl_core.testing.rewards import example_rollout
from lrl_core.types import RewardSignal
from lrl_plugins.rewards.bleu import BLEU

ROLLOUT = example_rollout()
ROWS, STEPS = ROLLOUT.tokens.shape
TOTAL = torch.arange(float(ROWS))


class Says(Reward):
    """Returns what it was given, or raises it."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def score(self, rollout):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def on_last_token(total):
    steps = torch.arange(STEPS)
    return torch.where(steps == ROLLOUT.lengths[:, None] - 1, total[:, None], 0.0)


def refused(answer):
    with pytest.raises(PluginError) as caught:
        judge(Says(answer), ROLLOUT)
    message = str(caught.value)
    assert message.startswith(f"Says ({origin(Says)}) returned ")
    assert "expected" in message
    return message


def test_a_correct_signal_passes_untouched():
    signal = RewardSignal(
        TOTAL, by_token=on_last_token(TOTAL), by_prefix=torch.zeros(ROWS, STEPS + 1), parts={"inner": TOTAL}
    )
    assert judge(Says(signal), ROLLOUT) is signal


def test_nan_says_cannot_judge_and_is_counted():
    total = TOTAL.clone()
    total[[1, 4]] = torch.nan
    by_token = on_last_token(total)
    signal = judge(Says(RewardSignal(total, by_token=by_token, parts={"inner": total})), ROLLOUT)
    assert count_unjudged(signal) == 2


@pytest.mark.parametrize("answer", [None, TOTAL, {"total": TOTAL}])
def test_only_a_signal_is_a_signal(answer):
    assert f"a {type(answer).__name__}; expected a RewardSignal" in refused(answer)


@pytest.mark.parametrize("total", [torch.tensor(1.0), torch.ones(1), torch.ones(ROWS, 1), torch.ones(ROWS - 1)])
def test_nothing_is_broadcast(total, shapes_unchecked):
    message = refused(RewardSignal(total))
    assert f"total of shape {list(total.shape)}" in message
    assert f"[{ROWS}]" in message


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.int32])
def test_types_that_cannot_say_nan_are_refused(dtype, shapes_unchecked):
    assert str(dtype) in refused(RewardSignal(torch.ones(ROWS).to(dtype)))


def test_numbers_that_are_no_tensor_are_refused(shapes_unchecked):
    assert "total of type list" in refused(RewardSignal([1.0] * ROWS))


def test_another_device_is_refused():
    assert "total on meta" in refused(RewardSignal(torch.empty(ROWS, device="meta")))


@pytest.mark.parametrize("infinity", [torch.inf, -torch.inf])
def test_infinities_are_refused_with_their_row(infinity):
    total = TOTAL.clone()
    total[3] = infinity
    assert "infinite total in rows 3;" in refused(RewardSignal(total))


def test_by_token_of_another_width_is_refused():
    assert f"[B, T] = [{ROWS}, {STEPS}]" in refused(RewardSignal(TOTAL, by_token=torch.zeros(ROWS, STEPS + 1)))


def test_by_token_that_does_not_add_up_is_refused():
    by_token = on_last_token(TOTAL)
    by_token[2, 0] += 0.01
    assert "0.01 away from total in rows 2" in refused(RewardSignal(TOTAL, by_token=by_token))


def test_by_token_may_be_off_by_rounding():
    by_token = on_last_token(TOTAL)
    by_token[2, 0] += 5e-5
    judge(Says(RewardSignal(TOTAL, by_token=by_token)), ROLLOUT)


def test_by_token_shifted_onto_padding_is_refused():
    # Row 1 is shorter than the batch, so its last increment falls on padding; row sums are still right.
    shifted = on_last_token(TOTAL).roll(1, dims=1)
    assert "pays padding" in refused(RewardSignal(TOTAL, by_token=shifted))


def test_by_token_must_be_finite_where_judged_only():
    total = TOTAL.clone()
    total[0] = torch.nan
    by_token = on_last_token(total)
    judge(Says(RewardSignal(total, by_token=by_token)), ROLLOUT)
    by_token[1, 0] = torch.nan
    assert "not finite in rows 1" in refused(RewardSignal(total, by_token=by_token))


def test_by_prefix_has_one_entry_more_than_tokens():
    message = refused(RewardSignal(TOTAL, by_prefix=torch.zeros(ROWS, STEPS)))
    assert f"[B, T + 1] = [{ROWS}, {STEPS + 1}]" in message


def test_by_prefix_must_be_finite_within_the_episode():
    by_prefix = torch.zeros(ROWS, STEPS + 1)
    row = int(ROLLOUT.lengths.argmin())
    by_prefix[row, ROLLOUT.lengths[row] + 1 :] = torch.nan  # past the end: nobody reads it
    judge(Says(RewardSignal(TOTAL, by_prefix=by_prefix)), ROLLOUT)
    by_prefix[row, ROLLOUT.lengths[row]] = -torch.inf
    assert f"by_prefix that is not finite in rows {row}" in refused(RewardSignal(TOTAL, by_prefix=by_prefix))


def test_parts_keep_the_contract_too(shapes_unchecked):
    assert "parts['inner'] of shape [1]" in refused(RewardSignal(TOTAL, parts={"inner": torch.ones(1)}))
    assert "parts of type list" in refused(RewardSignal(TOTAL, parts=[TOTAL]))


def test_failures_name_the_plugin_and_keep_the_cause():
    cause = ZeroDivisionError("grader fell over")
    with pytest.raises(PluginError, match=r"Says .* ZeroDivisionError: grader fell over") as caught:
        judge(Says(cause), ROLLOUT)
    assert caught.value.__cause__ is cause


def test_built_in_rewards_are_named_with_their_package():
    with pytest.raises(PluginError, match=r"BLEU \(lrl \d+\.\d+.*without texts"):
        judge(BLEU(), replace(ROLLOUT, texts=None))


def test_the_inner_plugin_is_named_not_the_one_around_it():
    class Around(Reward):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleList([Says(RuntimeError("deep"))])

        def score(self, rollout):
            return judge(self.inner[0], rollout)

    with pytest.raises(PluginError, match=r"^Says .*deep"):
        judge(Around(), ROLLOUT)

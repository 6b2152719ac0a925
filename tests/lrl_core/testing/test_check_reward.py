"""The kit must fail every reward that misbehaves in a way the training step relies on it not to."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lrl_core.interfaces import Reward
from lrl_core.scoring import PluginError
from lrl_core.testing.rewards import check_reward, example_rollout, example_tokenizer, with_padding
from lrl_core.types import RewardSignal


class Length(Reward):
    """Well-behaved: the number of tokens, also by token."""

    def score(self, rollout):
        real = torch.arange(rollout.tokens.shape[1]) < rollout.lengths[:, None]
        return RewardSignal(rollout.lengths.float(), by_token=real.float())


class Noisy(Length):
    def score(self, rollout):
        return RewardSignal(rollout.lengths + torch.rand(len(rollout)))


class OfTheBatch(Length):
    def score(self, rollout):
        return RewardSignal(rollout.lengths - rollout.lengths.float().mean())


class FirstRowWins(Length):
    def score(self, rollout):
        return RewardSignal((torch.arange(len(rollout)) == 0).float())


class Width(Length):
    def score(self, rollout):
        return RewardSignal(torch.full((len(rollout),), float(rollout.tokens.shape[1])))


class PaysPadding(Length):
    def score(self, rollout):
        by_token = torch.ones(rollout.tokens.shape)
        return RewardSignal(by_token.sum(1), by_token=by_token)


class WritesIntoTokens(Length):
    def score(self, rollout):
        rollout.tokens[0, 0] += 1
        return super().score(rollout)


class WritesIntoExamples(Length):
    def score(self, rollout):
        rollout.prompts.examples[0]["seen"] = True
        return super().score(rollout)


class WithGradients(Length):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def score(self, rollout):
        return RewardSignal(rollout.lengths * self.weight)


class ForgetfulOfItsState(Length):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def score(self, rollout):
        self.calls += self.training
        return RewardSignal(rollout.lengths.float() + self.calls)


class NeedsWords(Length):
    def score(self, rollout):
        return RewardSignal(torch.tensor([1.0 / len(text) if text is not None else 0 for text in rollout.texts]))


def test_a_well_behaved_reward_passes():
    check_reward(Length)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (Noisy, "other scores when asked again"),
        (OfTheBatch, "differently when alone"),
        (FirstRowWins, "by their place in the batch"),
        (Width, "moved by padding"),
        (WritesIntoTokens, "changed the rollout"),
        (WritesIntoExamples, "changed the rollout"),
        (WithGradients, "with gradients"),
        (ForgetfulOfItsState, "after its state dict was restored"),
    ],
)
def test_misbehaviour_is_found(make, problem):
    with pytest.raises(AssertionError, match=f"{make.__name__} .*{problem}"):
        check_reward(make)


@pytest.mark.parametrize(("make", "problem"), [(PaysPadding, "pays padding"), (NeedsWords, "ZeroDivisionError")])
def test_broken_contracts_are_found(make, problem):
    with pytest.raises(PluginError, match=problem):
        check_reward(make)


def test_rewards_that_compare_rows_can_say_so():
    class Saying(OfTheBatch):
        rowwise = False

    check_reward(Saying)


@pytest.mark.parametrize("samples", [1, 2])
def test_the_example_is_a_consistent_rollout(samples):
    rollout, tokenizer = example_rollout(samples), example_tokenizer()
    assert len(rollout) == 3 * samples == len(rollout.texts) == len(rollout.prompts.references)
    for row, text in enumerate(rollout.texts):
        ids = rollout.tokens[row, : rollout.lengths[row]].tolist()
        assert tokenizer.decode(ids) == text
        assert (ids[-1] == tokenizer.eos) == rollout.terminated[row]
        assert rollout.tokens[row, rollout.lengths[row] :].eq(tokenizer.pad).all()
    assert torch.equal(rollout.action_mask.sum(1), rollout.lengths)
    assert rollout.logprobs[~rollout.action_mask].eq(0).all()


def test_the_example_has_the_hard_cases():
    rollout = example_rollout()
    assert "" in rollout.texts
    assert not rollout.terminated.all()
    assert rollout.lengths.min() < rollout.lengths.max()


def test_padding_widens_what_has_a_time_axis():
    rollout = replace(example_rollout(), environment_reward=torch.ones(6, example_rollout().tokens.shape[1]))
    wide = with_padding(rollout, pad=0, columns=2)
    for field in ("tokens", "action_mask", "logprobs", "environment_reward", "reference_logprobs"):
        assert torch.equal(getattr(wide.trimmed(), field), getattr(rollout, field))
        assert getattr(wide, field).shape[1] == rollout.tokens.shape[1] + 2
        assert not getattr(wide, field)[:, -2:].any()

"""What every registered baseline owes the update: clean advantages, exact gradients, credit per token, kept state."""

import io
from dataclasses import replace

import pytest
import torch
from registered import build, names

from lrl_core.interfaces import bind_all
from lrl_core.masks import length_mask
from lrl_core.testing.parts import bigram_world, check_baseline, toy_episodes
from lrl_core.testing.toy import ToySampler, ToyTokenizer, toy_facts
from lrl_core.types import Experience
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce

SHRINKS = {"BatchMean": 0.5, "GroupMean": 0.5, "LengthWeighted": 0.5}
"""Baselines whose mean includes the sample itself: with two samples the expected gradient is halved."""
NOT_COMPARABLE = {
    "Critic": "says what it has learnt in place of the reward: its own tests give it the exact values",
    "LastToken": "weighs the tokens before the last by the mean of the batch: a bias of its own",
    "MonteCarlo": "estimates by continuations that it draws",
    "Whiten": "divides by the spread of the batch",
}
"""Baselines whose gradient is not exact by design, or is so only over their own draws; their tests say how much."""
BY_LEARNING = {"Critic": "looks at the reward when it learns, and not when it compares"}
"""Baselines whose advantages do not know the reward of the episode itself."""

baselines = pytest.mark.parametrize("name", names("baselines"))


def ready(name):
    baseline, decoder = build("baselines", name), Sample(max_length=4, samples=2)
    policy, reward = bigram_world()
    bind_all(baseline, toy_facts(ToyTokenizer(4, eos=3)))
    bind_all(decoder, toy_facts(ToyTokenizer(4, eos=3)))
    return baseline, ToySampler(policy, decoder, reward, baseline)


@baselines
def test_the_expected_gradient_is_exact_and_unjudged_rows_teach_nothing(name):
    if name in NOT_COMPARABLE:
        pytest.skip(f"{name} {NOT_COMPARABLE[name]}")
    scale = SHRINKS.get(name, 1.0)
    check_baseline(lambda: build("baselines", name), Reinforce(), Sample(max_length=2, samples=2), scale=scale)


@baselines
def test_a_reward_on_the_last_token_is_a_reward_of_the_whole(name):
    """Reward to go: what stands on the last token credits every token before it, as the total does."""
    rollout, signal = toy_episodes()
    at_end = torch.arange(rollout.tokens.shape[1]) == rollout.lengths[:, None] - 1
    by_token = torch.where(at_end & signal.judged[:, None], signal.total[:, None], 0)
    whole, sampler = ready(name)
    parts, _ = ready(name)
    torch.manual_seed(0)
    expected = whole.advantage(rollout, signal, sampler).value
    torch.manual_seed(0)
    got = parts.advantage(rollout, replace(signal, by_token=by_token), sampler).value
    assert torch.allclose(got, expected, atol=1e-6)


@baselines
def test_what_a_token_earned_is_no_credit_of_later_ones(name):
    """Moving the same total from the last token to the first changes the advantages behind the first token."""
    if name in BY_LEARNING:
        pytest.skip(f"{name} {BY_LEARNING[name]}")
    rollout, signal = toy_episodes()
    judged = signal.judged[:, None]
    steps = torch.arange(rollout.tokens.shape[1])
    late = torch.where((steps == rollout.lengths[:, None] - 1) & judged, signal.total[:, None], 0)
    early = torch.where((steps == 0) & judged, signal.total[:, None], 0)
    values = []
    for by_token in (late, early):
        baseline, sampler = ready(name)
        torch.manual_seed(0)
        values.append(baseline.advantage(rollout, replace(signal, by_token=by_token), sampler).value)
    taught = rollout.action_mask & judged & length_mask(rollout.lengths, len(steps)) & (steps > 0)
    assert not torch.allclose(values[0][taught], values[1][taught])


@baselines
def test_state_returns_from_a_checkpoint(name):
    """Three steps, saved and restored: the next advantages are the same."""
    rollout, signal = toy_episodes()
    old, sampler = ready(name)
    for step in range(3):
        torch.manual_seed(step)
        advantage = old.advantage(rollout, replace(signal, total=signal.total + step), sampler)
        for part in old.modules():
            part.learned(Experience(rollout, signal, advantage)) if hasattr(part, "learned") else None
    saved = io.BytesIO()
    torch.save(old.state_dict(), saved)
    saved.seek(0)
    new, _ = ready(name)
    new.load_state_dict(torch.load(saved, weights_only=True))
    got = []
    for baseline in (old, new):
        torch.manual_seed(9)
        got.append(baseline.advantage(rollout, signal, sampler).value)
    assert got[0].equal(got[1])

"""Several passes over one collection: every prompt once per pass, in a new order."""

from dataclasses import replace

import pytest
import torch

from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.testing.parts import check_replay
from lrl_core.testing.toy import toy_prompts
from lrl_core.types import Advantage, Experience, RewardSignal, Rollout
from lrl_plugins.replays.epochs import Epochs, shuffled_parts
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.redraw import Redraw


def collected(prompts=7, samples=3):
    """Every token, reward and advantage is another number; lines have different lengths."""
    rows = prompts * samples
    group = torch.arange(100, 100 + prompts).repeat_interleave(samples)
    lengths = 1 + torch.arange(rows) % 5
    mask = length_mask(lengths, 5)
    tokens = torch.where(mask, torch.arange(rows * 5).view(rows, 5), 0)
    rollout = Rollout(
        prompts=replace(toy_prompts(rows), group=group),
        tokens=tokens,
        lengths=lengths,
        action_mask=mask,
        logprobs=-tokens / 1000,
        terminated=torch.ones(rows, dtype=torch.bool),
        sampling=Sampling(),
    )
    human = replace(rollout.select(torch.arange(0, rows, samples)), sampling=None)
    value, total = tokens / 10, torch.arange(rows) / 2
    return Experience(rollout, RewardSignal(total), Advantage(value, target=value + 1), human)


def rows_of(experience):
    """Every episode with all that is said of it, padding left out."""
    rollout, found = experience.rollout, []
    for row in range(len(rollout)):
        real = slice(int(rollout.lengths[row]))
        columns = (rollout.tokens, rollout.logprobs, experience.advantage.value, experience.advantage.target)
        numbers = [tuple(column[row, real].tolist()) for column in columns]
        found.append((int(rollout.prompts.group[row]), float(experience.reward.total[row]), *numbers))
    return found


def test_conforms():
    check_replay(Epochs)


@pytest.mark.parametrize("minibatches", [1, 2, 3, 7])
def test_the_parts_of_a_pass_are_the_whole_experience(minibatches):
    whole = collected()
    torch.manual_seed(0)
    parts = list(Epochs(epochs=2, minibatches=minibatches).batches(lambda: whole, lambda: None))
    assert len(parts) == 2 * minibatches
    for one_pass in (parts[:minibatches], parts[minibatches:]):
        assert sorted(row for part in one_pass for row in rows_of(part)) == sorted(rows_of(whole))
        for part in one_pass:
            episodes, answers = part.rollout.prompts.group.tolist(), part.expert.prompts.group.tolist()
            assert sorted(episodes) == sorted(answers * 3)  # no prompt is cut apart, its answer comes along
        sizes = [len(part.expert) for part in one_pass]
        assert max(sizes) - min(sizes) <= 1


def test_the_episodes_are_drawn_once():
    calls = []

    def collect(groups=None):
        calls.append(groups)
        return collected()

    assert len(list(Epochs(epochs=3, minibatches=2).batches(collect, lambda: None))) == 6
    assert calls == [None]


def test_passes_have_orders_of_their_own_that_the_seed_decides():
    def order():
        parts = Epochs(epochs=2, minibatches=7).batches(collected, lambda: None)
        return [int(part.rollout.prompts.group[0]) for part in parts]

    torch.manual_seed(3)
    first = order()
    torch.manual_seed(3)
    assert order() == first
    assert first[:7] != first[7:]
    assert order() != first


def test_fewer_prompts_than_parts_are_refused():
    with pytest.raises(ValueError, match="2 different prompts; expected at least 3, one per minibatch"):
        list(shuffled_parts(collected(prompts=2), 3))


def test_goes_over_what_its_source_draws():
    asked = []

    def collect(groups=None):
        asked.append(groups)
        whole = collected(prompts=4, samples=2)
        equal = replace(whole, reward=RewardSignal(torch.tensor([0.0, 1.0] * 3 + [1.0, 1.0])))
        return equal if groups is None else whole.of_groups(set(groups))

    parts = list(Epochs(epochs=2, minibatches=2, source=Redraw()).batches(collect, lambda: None))
    assert asked == [None, {103}]
    assert sorted(group for part in parts[:2] for group in part.expert.prompts.group.tolist()) == [100, 101, 102, 103]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "expected both >= 1"),
        ({"minibatches": 0}, "expected both >= 1"),
        ({"source": Expert()}, "the source Expert draws no episodes"),
        ({"source": Redraw(drop=True), "minibatches": 2}, "a source Redraw that drops prompts"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Epochs(**options)

"""Episodes that begin alike are played as one until they part, and come out as if each had been played alone."""

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.openings import shared
from lrl_core.testing.toy import TablePolicy, ToyTokenizer, toy_facts, toy_prompts
from lrl_plugins.decoders.sample import Greedy, Sample

EOS = 3


class Counted(TablePolicy):
    """A bigram policy that counts the rows it reads."""

    read = 0

    def step(self, tokens, state):
        self.read += len(tokens)
        return super().step(tokens, state)


def world() -> Counted:
    return Counted(torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), eos=EOS)


def bound(decoder):
    bind_all(decoder, toy_facts(ToyTokenizer(4, eos=EOS)))
    return decoder


def test_an_opening_waits_for_a_longer_one_of_the_same_prompt():
    joining = shared([0, 0, 0, 1], [(1, 2), (1,), (1, 2, 0), (1,)], max_length=6, eos=EOS)
    assert joining.waiting == {0, 1}
    assert joining.at == {2: ([0], [2]), 1: ([1], [2])}


@pytest.mark.parametrize("opening", [(1, EOS), (1, 2, 0, 0, 1, 1)], ids=["ended", "as long as the limit"])
def test_a_whole_episode_waits_for_nobody(opening):
    assert shared([0, 0], [opening, opening], max_length=6, eos=EOS).waiting == set()


@pytest.mark.parametrize("same", [True, False], ids=["one prompt", "a prompt each"])
def test_greedy_completions_are_those_of_each_alone(same):
    openings = [(0, 1, 2), (0, 1), (0,), (), (0, 1, 2), (2,), (0, 1, EOS), (1, 1, 1, 1, 1, 1)]
    prompts = toy_prompts(len(openings), same)
    together = bound(Greedy(max_length=6)).complete(world(), prompts, openings)
    for row, opening in enumerate(openings):
        alone = bound(Greedy(max_length=6)).complete(world(), prompts.select(torch.tensor([row])), [opening])
        length = int(alone.lengths[0])
        assert int(together.lengths[row]) == length
        assert together.tokens[row, :length].tolist() == alone.tokens[0].tolist()
        assert together.action_mask[row, :length].tolist() == alone.action_mask[0].tolist()
        assert torch.allclose(together.logprobs[row, :length], alone.logprobs[0])
        assert bool(together.terminated[row]) == bool(alone.terminated[0])
    assert together.action_mask.sum(1).tolist() == [
        int(n) - len(o) for n, o in zip(together.lengths, openings, strict=True)
    ]


def test_drawn_completions_have_the_frequencies_and_log_probabilities_of_the_policy():
    openings = [(0, 1)] * 3000 + [(0, 1, 2)]
    torch.manual_seed(0)
    rollout = bound(Sample(max_length=3)).complete(world(), toy_prompts(3001), openings)
    policy = world()
    expected = policy.table[2].softmax(0)  # after token 1
    drawn = torch.bincount(rollout.tokens[:3000, 2], minlength=4) / 3000
    assert (drawn - expected).abs().max() < 5 * (0.25 / 3000) ** 0.5
    assert torch.allclose(policy(rollout).logprobs.float(), rollout.logprobs, atol=1e-6)


def test_what_is_shared_is_read_once():
    policy = world()
    openings = [(0, 1, 2, 0, 1, 2, 0)[:length] for length in range(1, 8) for _ in range(10)]
    bound(Greedy(max_length=8)).complete(policy, toy_prompts(70), openings)
    assert policy.read < 70 * 7 / 1.5

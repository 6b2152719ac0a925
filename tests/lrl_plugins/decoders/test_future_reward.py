import pytest
import torch
from torch import nn

from lrl_core.interfaces import bind_all
from lrl_core.testing.parts import EOS, bigram_world, check_decoder
from lrl_core.testing.toy import TREE_REWARD, TablePolicy, ToyTokenizer, toy_facts, toy_prompts, tree_world
from lrl_core.types import Experience, RewardSignal
from lrl_plugins.decoders.future_reward import FutureReward
from lrl_plugins.decoders.sample import Greedy, Sample


def bound(decoder, size=4, eos=EOS):
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=eos)))
    return decoder


def tree():
    """The tree world with a fourth, almost impossible token that ends."""
    table = torch.full((5, 4), -20.0, dtype=torch.float64)
    table[:4, :3] = tree_world()[0].table.detach()
    return TablePolicy(table, eos=3)


class Oracle(nn.Module):
    """Knows the expected reward after each prefix of the tree."""

    def start(self, prompts):
        return torch.full((len(prompts), 1), -1.0)

    def advance(self, tokens, state):
        return tokens[:, None].float()

    def candidates(self, tokens, state):
        pays = torch.tensor([*TREE_REWARD, [0.0] * 3])
        pays = torch.cat([pays, torch.zeros(4, 1)], 1)
        second = tree().table.detach()[1:].softmax(1).float()
        expected = (second * pays).sum(1)
        said = state[:, 0].long()
        return torch.where(said[:, None] < 0, expected[tokens], pays[said.clamp(min=0)].gather(1, tokens))


def test_conforms():
    check_decoder(lambda: FutureReward(max_length=8))


# Expected rewards after 0, 1, 2 are .555, 1.170 and 1.066, and their logits .2, -.1 and .4; then 1, 2 and 3 can be had.
@pytest.mark.parametrize(("strength", "tokens"), [(0.0, [2, 1]), (0.5, [2, 2]), (6.0, [1, 1])])
def test_an_oracle_leads_to_what_pays(strength, tokens):
    decoder = bound(FutureReward(strength, candidates=4, max_length=2))
    decoder.estimator = Oracle()
    assert decoder.decode(tree(), toy_prompts()).tokens.tolist() == [tokens]
    greedy = bound(Greedy(max_length=2)).decode(tree(), toy_prompts())
    assert greedy.tokens.tolist() == [[2, 1]]


def test_learns_what_episodes_earned_and_nothing_from_the_unjudged():
    torch.manual_seed(0)
    decoder = bound(FutureReward(max_length=4))
    rollout = bound(Sample(max_length=4, samples=6)).decode(bigram_world()[0], toy_prompts())
    total = torch.tensor([1.0, torch.nan, 0.5, -2.0, 0.0, 3.0])
    experience = Experience(rollout, RewardSignal(total))
    judged = [0, 2, 3, 4, 5]
    assert decoder.count(experience) == rollout.lengths[judged].sum()
    estimates = decoder.estimator(rollout)
    expected = sum(((estimates[b, : rollout.lengths[b]] - total[b]) ** 2).sum() for b in judged)
    loss = decoder.learn(experience)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.total.backward()
    assert all(p.grad.isfinite().all() for p in decoder.parameters())


def test_refuses_a_negative_strength():
    with pytest.raises(ValueError, match="strength is -1"):
        FutureReward(strength=-1.0)

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from lrl_core.interfaces import Reward, bind_all
from lrl_core.registry import PluginError
from lrl_core.testing.parts import bigram_world, check_decoder
from lrl_core.testing.toy import TablePolicy, TableReward, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.types import RewardSignal
from lrl_plugins.decoders.best_of_n import BestOfN, pick_best
from lrl_plugins.decoders.sample import Sample

BANDIT = TablePolicy(torch.tensor([[0.5, 0.3, 0.2]]).log())


def bound(decoder, size=3, eos=-1):
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=eos)))
    return decoder


def kept(n, pays, count=20_000):
    torch.manual_seed(0)
    decoder = bound(BestOfN(n, Sample(max_length=1), TableReward(lambda tokens: pays[tokens[0]])))
    rollout = decoder.decode(BANDIT, toy_prompts(count))
    assert len(rollout) == count
    return np.bincount(rollout.tokens[:, 0].numpy(), minlength=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BestOfN(3, Sample(max_length=8), TableReward(lambda tokens: float(tokens.count(0)))),
        lambda: BestOfN(2, Sample(max_length=8, top_p=0.7)),
    ],
)
def test_conforms(make):
    check_decoder(make)


# P(y) = F(y)^n - F(y-)^n with F the distribution function in the order of the reward
@pytest.mark.parametrize(
    ("n", "expected"), [(1, [0.5, 0.3, 0.2]), (2, [0.25, 0.39, 0.36]), (4, [0.0625, 0.3471, 0.5904])]
)
def test_the_kept_ones_are_distributed_as_enumeration_says(n, expected):
    assert chisquare(kept(n, [0.0, 1.0, 2.0]), np.array(expected) * 20_000).pvalue > 1e-3


def test_ties_are_split_by_probability():
    assert chisquare(kept(2, [0.0, 0.0, 1.0]), np.array([0.4, 0.24, 0.36]) * 20_000).pvalue > 1e-3


def test_an_unjudged_episode_is_kept_only_where_all_are():
    scores = torch.tensor([[torch.nan, -5.0, torch.nan], [torch.nan] * 3])
    columns = torch.stack([pick_best(scores) for _ in range(60)])
    assert set(columns[:, 0].tolist()) == {1}
    assert set(columns[:, 1].tolist()) == {0, 1, 2}


class CountsA(Reward):
    def score(self, rollout):
        return RewardSignal(torch.tensor([float(text.count("a")) for text in rollout.texts]))


def test_the_reward_reads_texts_and_prompts_keep_their_order():
    torch.manual_seed(1)
    decoder = bound(BestOfN(64, Sample(max_length=3), CountsA()))
    rollout = decoder.decode(BANDIT, toy_prompts(5, same=False))
    assert rollout.prompts.group.tolist() == [0, 1, 2, 3, 4]
    assert rollout.tokens.tolist() == [[0, 0, 0]] * 5


def test_without_a_reward_the_most_probable_is_kept():
    torch.manual_seed(1)
    rollout = bound(BestOfN(64, Sample(max_length=2))).decode(BANDIT, toy_prompts())
    assert rollout.tokens.tolist() == [[0, 0]]


class Shapeless(Reward):
    def score(self, rollout):
        return RewardSignal(torch.zeros(1))


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_reward_that_breaks_its_contract_is_named():
    with pytest.raises(PluginError, match="Shapeless"):
        bound(BestOfN(4, Sample(max_length=1), Shapeless())).decode(BANDIT, toy_prompts())


def test_it_is_no_draw_and_its_rival_is_that_of_the_inner_decoder():
    decoder = bound(BestOfN(2, Sample(max_length=2)), 4, 3)
    assert not decoder.draws
    assert len(decoder.greedy().decode(bigram_world()[0], toy_prompts())) == 1
    with pytest.raises(ValueError, match="3 samples per prompt"):
        BestOfN(2, Sample(samples=3))

"""Credit by the difference that each token makes: sums, hand-made numbers, what cannot be judged, unbiasedness."""

from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import Reward, bind_all
from lrl_core.masks import length_mask
from lrl_core.scoring import judge
from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.rewards import check_reward, example_rollout, example_tokenizer, facts_of
from lrl_core.testing.toy import (
    TREE_GRADIENT,
    TREE_REWARD,
    TableReward,
    ToySampler,
    ToyTokenizer,
    every_episode,
    stop_world,
    toy_facts,
    tree_world,
)
from lrl_core.types import RewardSignal
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.rewards.bleu import BLEU
from lrl_plugins.rewards.character_accuracy import CharacterAccuracy
from lrl_plugins.rewards.diversity import SelfBLEU
from lrl_plugins.rewards.prefix_differences import PrefixDifferences


class Worth(Reward):
    """Pays what a table says of an episode's tokens; counts how often it is asked."""

    def __init__(self, worth):
        super().__init__()
        self.worth, self.asked, self.calls = worth, [], 0

    def score(self, rollout):
        self.calls += 1
        lines = [tuple(row[:n]) for row, n in zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)]
        self.asked += [(line, text) for line, text in zip(lines, rollout.texts or (None,) * len(lines), strict=True)]
        total = torch.tensor([float(self.worth(line)) for line in lines], dtype=torch.float64)
        return RewardSignal(total, parts={"worth": total})


def bound(reward, size=4, eos=3):
    bind_all(reward, toy_facts(ToyTokenizer(size, eos=eos)))
    return reward


def three_episodes():
    """a b c, b EOS and c a EOS of the tree's letters and an end token."""
    policy, _ = stop_world()
    rollout, _ = every_episode(policy, 2)
    rows = torch.tensor([0, 1, 2])
    lengths = torch.tensor([3, 2, 3])
    tokens = torch.tensor([[0, 1, 2], [1, 3, 0], [2, 0, 3]])
    return replace(
        rollout.select(rows),
        tokens=tokens,
        lengths=lengths,
        action_mask=length_mask(lengths, 3),
        logprobs=torch.zeros(3, 3),
        terminated=torch.tensor([False, True, True]),
        texts=("abc", "b", "ca"),
    )


def squares(line):
    return (1 + sum(line)) ** 2


def test_differences_by_hand_in_one_call():
    inner = Worth(squares)
    signal = judge(bound(PrefixDifferences(inner)), three_episodes())
    # Sums of tokens 0 1 3, 1 4 and 2 2 5, squared after adding 1: 1 4 16, 4 25 and 9 9 36.
    assert signal.by_token.tolist() == [[1, 3, 12], [4, 21, 0], [9, 0, 27]]
    assert signal.total.tolist() == [16, 25, 36]
    assert signal.parts["worth"].tolist() == [16, 25, 36]
    assert inner.calls == 1
    assert sorted(inner.asked)[:3] == [((0,), "a"), ((0, 1), "ab"), ((0, 1, 2), "abc")]


@pytest.mark.parametrize(("every", "expected"), [(2, [[0, 4, 12], [0, 25, 0], [0, 9, 27]]), (9, None)])
def test_fewer_beginnings_are_scored(every, expected):
    signal = judge(bound(PrefixDifferences(Worth(squares), every)), three_episodes())
    expected = expected or [[0, 0, 16], [0, 25, 0], [0, 0, 36]]
    assert signal.by_token.tolist() == expected


def test_a_beginning_that_cannot_be_judged_is_paid_with_the_next_and_an_unjudged_whole_is_nan():
    unknown = {(0, 1), (2, 0), (1, 3)}
    inner = Worth(lambda line: float("nan") if line in unknown else squares(line))
    signal = judge(bound(PrefixDifferences(inner)), three_episodes())
    assert signal.by_token.tolist() == [[1, 0, 15], [0, 0, 0], [9, 0, 27]]
    assert signal.total.isnan().tolist() == [False, True, False]


def test_an_environments_words_are_credited_to_the_choice_before_them():
    rollout = three_episodes()
    mask = rollout.action_mask.clone()
    mask[0, 1] = mask[2, 2] = False
    signal = judge(bound(PrefixDifferences(Worth(squares))), replace(rollout, action_mask=mask))
    # Row 2 ends with a word of the world: its last choice, before it, has all that is left of the whole.
    assert signal.by_token.tolist() == [[1, 0, 15], [4, 21, 0], [9, 27, 0]]


def test_an_episode_that_ends_where_its_beginning_did_earns_nothing_by_ending():
    """EOS is no word: BLEU of a text does not change with it."""
    rollout = example_rollout()
    reward = PrefixDifferences(BLEU(smoothing="add_one_all"))
    bind_all(reward, facts_of(rollout, example_tokenizer()))
    signal = judge(reward, rollout)
    ended = rollout.terminated
    last = signal.by_token.gather(1, rollout.lengths[:, None] - 1).squeeze(1)
    assert last[ended].abs().max() == 0
    alone = judge(BLEU(smoothing="add_one_all"), rollout)
    assert signal.total.equal(alone.total)
    assert torch.allclose(signal.by_token.sum(1), alone.total, atol=1e-6)


def test_the_papers_bleu_of_a_beginning():
    """add_one_all: every order has a match and an n-gram more; one word of five right, brevity penalty exp(1 - 5)."""
    rollout = example_rollout().select(torch.tensor([0]))
    reward = PrefixDifferences(BLEU(smoothing="add_one_all"))
    bind_all(reward, facts_of(rollout, example_tokenizer()))
    first = judge(reward, rollout).by_token[0, 0]
    assert first.item() == pytest.approx(torch.tensor(-4.0).exp().item(), rel=1e-5)  # precisions 2/2 and 1/1 thrice


@pytest.mark.parametrize("inner", [BLEU, CharacterAccuracy], ids=lambda kind: kind.__name__)
def test_conforms(inner):
    rollout = example_rollout()
    facts = facts_of(rollout, example_tokenizer())
    check_reward(lambda: PrefixDifferences(inner()), rollout, facts)


def test_the_expected_gradient_is_that_of_the_whole_reward_and_varies_otherwise():
    policy, whole = tree_world()

    def worth(tokens):
        return TREE_REWARD[tokens[0]][tokens[1]] if len(tokens) == 2 else 0.7 + tokens[0] ** 2

    tokenizer = ToyTokenizer(3)
    tokenizer.pad = 0
    shaped = PrefixDifferences(TableReward(worth))
    bind_all(shaped, toy_facts(tokenizer))
    sampler = ToySampler(policy, Sample(max_length=2), shaped)
    mean, variance = gradient_moments(policy, shaped, Constant(), Reinforce(), sampler, 1)
    assert torch.allclose(mean, -torch.tensor(TREE_GRADIENT, dtype=torch.float64), atol=2e-6)
    _, plain = gradient_moments(policy, whole, Constant(), Reinforce(), sampler, 1)
    assert variance != pytest.approx(plain, abs=1e-3)


def test_empty_episodes_are_only_judged():
    rollout = three_episodes()
    none = replace(rollout, lengths=torch.zeros(3).long(), action_mask=torch.zeros(3, 3).bool(), texts=("", "", ""))
    signal = judge(bound(PrefixDifferences(Worth(squares))), none)
    assert signal.total.tolist() == [1, 1, 1]
    assert signal.by_token.abs().max() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PrefixDifferences(every=0), "every is 0"),
        (lambda: PrefixDifferences(SelfBLEU()), "SelfBLEU, whose scores depend on the other episodes"),
    ],
)
def test_refuses_what_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()

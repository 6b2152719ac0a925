"""Rewards of the text up to its first full stop."""

from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import Reward, bind_all
from lrl_core.masks import length_mask
from lrl_core.scoring import judge
from lrl_core.testing.toy import TableReward, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.normalise import Standardise
from lrl_plugins.rewards.sum import Sum
from lrl_plugins.rewards.up_to import UpTo

STOP, EOS = 1, 3
NAN = float("nan")


class Spy(Reward):
    """Pays what it is told to and remembers what it saw."""

    def __init__(self, pays, by_token=False):
        super().__init__()
        self.pays, self.by_token, self.saw = pays, by_token, None

    def score(self, rollout):
        self.saw = rollout
        total = torch.tensor(self.pays[: len(rollout)])
        if not self.by_token:
            return RewardSignal(total, parts={"inner": total})
        first = torch.arange(rollout.tokens.shape[1]) == 0
        return RewardSignal(total, by_token=torch.where(first, total[:, None], 0))


def episodes(*lines, terminated=True):
    """Lines of token ids, with texts."""
    lengths = torch.tensor([len(line) for line in lines])
    width = max(map(len, lines))
    mask = length_mask(lengths, width)
    return Rollout(
        prompts=toy_prompts(len(lines)),
        tokens=torch.tensor([[*line, *[0] * (width - len(line))] for line in lines]),
        lengths=lengths,
        action_mask=mask,
        logprobs=torch.where(mask, -1.0, 0.0),
        terminated=torch.full((len(lines),), terminated),
        texts=tuple(ToyTokenizer(5, eos=EOS).decode(line) for line in lines),
    )


def bound(reward):
    bind_all(reward, toy_facts(ToyTokenizer(5, eos=EOS)))
    return reward


def line(length, *stops):
    return [STOP if place in stops else 2 for place in range(length)]


def test_ziegler_continuations():
    """24 tokens, "." from place 16 on: one at 10 alone is none; of those at 16 and 20 the first cuts."""
    spy = Spy([5.0, 7.0, 9.0])
    drawn = episodes(line(24, 10), line(24, 16, 20), line(24, 3, 23))
    signal = judge(bound(UpTo(spy, stop="b", after=16)), drawn)
    assert signal.total.tolist() == [-1.0, 7.0, 9.0]
    assert signal.parts["stopped"].tolist() == [0.0, 1.0, 1.0]
    assert spy.saw.lengths.tolist() == [24, 17, 24]
    assert spy.saw.texts[1] == "c" * 16 + "b"
    assert spy.saw.tokens[1, 16:].tolist() == [STOP] + [0] * 7
    assert spy.saw.action_mask.sum(1).tolist() == [24, 17, 24]
    assert spy.saw.terminated.all()


def test_what_comes_after_the_stop_changes_nothing():
    reward = bound(UpTo(TableReward(lambda tokens: float(sum(tokens))), stop=[STOP], after=2))
    one, other = episodes(line(6, 3)), episodes([2, 2, 2, STOP, 4, 4])
    assert judge(reward, one).total.equal(judge(reward, other).total)


def test_only_what_the_policy_said_can_be_the_stop():
    drawn = episodes(line(6, 2, 4))
    mask = drawn.action_mask.clone()
    mask[0, 2] = False
    spy = Spy([1.0])
    judge(bound(UpTo(spy, stop=[STOP])), replace(drawn, action_mask=mask, logprobs=torch.where(mask, -1.0, 0.0)))
    assert spy.saw.lengths.tolist() == [5]


def test_without_a_stop_token_an_episode_that_was_cut_pays():
    spy = Spy([1.0, 2.0, 3.0])
    drawn = replace(episodes([2, 2, EOS], [2, 2, 2], [EOS]), terminated=torch.tensor([True, False, True]))
    signal = judge(bound(UpTo(spy, penalty=-3.0)), drawn)
    assert signal.total.tolist() == [1.0, -3.0, 3.0]
    assert spy.saw.texts == ("cc", "ccc", "")


def test_the_penalty_comes_after_the_inner_normalisation():
    """Standardised, 0 and 10 are -1 and 1; the penalty is what it is."""
    inner = Sum({"taste": Spy([0.0, 10.0, 0.0, 10.0])}, normalise={"taste": Standardise()})
    reward = bound(UpTo(inner, stop="b", after=1, penalty=-0.5)).train()
    signal = judge(reward, episodes(line(3, 2), line(3, 1), line(3), line(3)))
    assert signal.total.tolist() == pytest.approx([-1.0, 1.0, -0.5, -0.5])


def test_unjudged_stays_unjudged_unless_it_pays():
    signal = judge(bound(UpTo(Spy([NAN, NAN]), stop="b")), episodes(line(3, 1), line(3)))
    assert signal.total[0].isnan()
    assert signal.total[1] == -1


def test_increments_end_with_the_episode_that_was_judged():
    signal = judge(bound(UpTo(Spy([2.0, 2.0], by_token=True), stop="b")), episodes(line(4, 1), line(3)))
    assert signal.by_token.tolist() == [[2, 0, 0, 0], [0, 0, -1, 0]]


def test_a_stop_that_is_no_token_is_refused():
    with pytest.raises(ValueError, match=r"stop 'bc', which the task's tokenizer reads as 'bc' \(2 tokens\)"):
        bound(UpTo(Spy([0.0]), stop="bc"))
    for bad in ({"stop": ""}, {"stop": []}, {"after": -1}):
        with pytest.raises(ValueError, match="expected a token, ids or null, and a place >= 0"):
            UpTo(Spy([0.0]), **bad)

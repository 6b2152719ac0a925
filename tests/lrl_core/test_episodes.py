"""The one loop: forced openings, conversations, finished rows leaving the batch."""

import pytest
import torch

from lrl_core.episodes import play
from lrl_core.interfaces import Environment
from lrl_core.sampling import Sampling
from lrl_core.testing.parts import EOS, bigram_world
from lrl_core.testing.toy import TablePolicy, toy_prompts
from lrl_core.types import Reply


def best(logits, position):
    value, token = logits.log_softmax(1).max(1)
    return token, value


def run(policy, count=1, **options):
    settings = {"pad": 0, "eos": EOS, "sampling": Sampling(), "max_length": 8} | options
    return play(policy, toy_prompts(count, same=False), best, **settings)


def ring():
    """After a comes b, after b comes c, after c comes the end; the first token is a."""
    table = torch.zeros(5, 4)
    for line, token in enumerate([0, 1, 2, 3, 3]):
        table[line, token] = 5.0
    return TablePolicy(table, eos=EOS)


def test_plays_until_the_end_token():
    rollout = run(ring())
    assert rollout.tokens.tolist() == [[0, 1, 2, 3]]
    assert rollout.terminated.tolist() == [True]


def test_the_limit_cuts():
    rollout = run(ring(), max_length=2)
    assert rollout.tokens.tolist() == [[0, 1]]
    assert rollout.terminated.tolist() == [False]


def test_forced_openings_are_no_actions():
    rollout = run(ring(), count=3, forced=[[2], [], [0, 0]])
    assert rollout.tokens.tolist() == [[2, 3, 0, 0, 0], [0, 1, 2, 3, 0], [0, 0, 1, 2, 3]]
    assert rollout.action_mask.int().tolist() == [[0, 1, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert rollout.lengths.tolist() == [2, 4, 5]
    assert rollout.logprobs[0, 0] == 0


def test_an_opening_that_ends_with_the_end_token_is_a_whole_episode():
    rollout = run(ring(), count=3, forced=[[0, EOS], [EOS, 0], [0, 1]], max_length=5)
    assert rollout.lengths.tolist() == [2, 5, 4]
    assert rollout.terminated.tolist() == [True, True, True]
    assert rollout.action_mask.int().tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0]]


def test_an_opening_that_the_limit_cuts_has_not_ended():
    rollout = run(ring(), forced=[[0, 0, EOS]], max_length=2)
    assert rollout.lengths.tolist() == [2]
    assert rollout.terminated.tolist() == [False]


class Oracle(Environment):
    """Answers every b with `c a`, pays 2 for it, and hangs up after two turns."""

    turn_ends = (1,)

    def start(self, prompts):
        return [{"turns": 0} for _ in range(len(prompts))]

    def reply(self, state, said):
        state["turns"] += 1
        state.setdefault("heard", []).append(list(said))
        self.last = state
        return Reply([2, 0], reward=2.0, done=state["turns"] == 2)


def test_an_environments_words_stand_in_the_line_and_are_no_actions():
    oracle = Oracle()
    rollout = run(ring(), environment=oracle, max_length=10)
    #         a  b  [c  a]  b  [c  a]
    assert rollout.tokens.tolist() == [[0, 1, 2, 0, 1, 2, 0]]
    assert rollout.action_mask.int().tolist() == [[1, 1, 0, 0, 1, 0, 0]]
    assert rollout.environment_reward.tolist() == [[0, 2, 0, 0, 2, 0, 0]]
    assert oracle.last["heard"] == [[0, 1], [1]]
    assert rollout.terminated.tolist() == [True]


class Broken(Oracle):
    def reply(self, state, said):
        raise KeyError("no such object")


class Foreign(Oracle):
    def reply(self, state, said):
        return Reply([99])


def test_an_environment_that_raises_is_named_with_the_row_and_the_transcript():
    with pytest.raises(RuntimeError, match=r"Broken, episode 0: raised KeyError.*so far: \[0, 1\]"):
        run(ring(), environment=Broken())


def test_an_environment_outside_the_vocabulary_is_named():
    with pytest.raises(ValueError, match=r"Foreign, episode 0: said token ids \[99\]; expected ids from 0 to 3"):
        run(ring(), environment=Foreign())


def test_dropping_finished_rows_changes_no_episode(monkeypatch):
    policy, _ = bigram_world()
    openings = [[i % 3] * (i % 4) for i in range(12)]
    eager = run(policy, count=12, forced=openings, max_length=20)
    monkeypatch.setattr("lrl_core.episodes.COMPACT_BELOW", -1.0)
    never = run(policy, count=12, forced=openings, max_length=20)
    assert eager.tokens.equal(never.tokens)
    assert eager.lengths.equal(never.lengths)
    assert torch.allclose(eager.logprobs, never.logprobs)


def test_samples_of_a_prompt_share_one_reading():
    policy = ring()
    read = []
    begin = policy.begin
    policy.begin = lambda prompts: (read.append(len(prompts)), begin(prompts))[1]
    rollout = run(policy, count=2, samples=3)
    assert read == [2]
    assert rollout.prompts.group.tolist() == [0, 0, 0, 1, 1, 1]


def test_forced_openings_must_be_one_per_episode():
    with pytest.raises(ValueError, match="2 forced openings for 1 episodes"):
        run(ring(), forced=[[], []])

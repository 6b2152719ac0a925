"""Conversations: who hands over when, what is closed, whose words are learnt."""

from dataclasses import replace

import pytest
import torch

from lrl_core.episodes import play
from lrl_core.interfaces import bind_all
from lrl_core.sampling import Sampling
from lrl_core.testing.environments import ToyOracle
from lrl_core.testing.parts import EOS
from lrl_core.testing.toy import TablePolicy, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.types import Advantage, Experience, Prompts, Reply, RewardSignal, Rollout
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce

torch.set_num_threads(1)


def best(logits, position):
    value, token = logits.log_softmax(1).max(1)
    return token, value


def path(*tokens):
    """Says the first token at the start, and after each token the one that follows it here."""
    table = torch.zeros(5, 4, dtype=torch.float64)
    for line, token in zip([0, *(1 + token for token in tokens)], tokens, strict=False):
        table[line, token] = 5.0
    return TablePolicy(table, eos=EOS)


def played(policy, environment, max_length=8):
    return play(
        policy, toy_prompts(), best, max_length, pad=0, eos=EOS, sampling=Sampling(), environment=environment
    )  # fmt: skip


class Says(ToyOracle):
    """Answers with these words, whatever it hears."""

    def __init__(self, *answer: int, **options) -> None:
        super().__init__(**options)
        self.answer = answer

    def reply(self, state, said):
        return replace(super().reply(state, said), tokens=self.answer)


# Handing over


def test_the_longest_turn_hands_over():
    oracle = Says(2, turn_ends=(), longest_turn=2, turns=2)
    rollout = played(path(0, 1, 0, 1), oracle)
    assert [len(said) for said in oracle.heard[0]] == [2, 2]
    assert oracle.heard[0][0] == [0, 1]
    assert rollout.action_mask.int().tolist() == [[1, 1, 0, 1, 1, 0]]


def test_a_turn_counts_from_the_last_answer():
    """b hands over before the limit of three is reached; the next turn has three tokens again."""
    oracle = Says(2, turn_ends=(1,), longest_turn=3, turns=2)
    table = torch.zeros(5, 4)
    for line, token in enumerate([0, 1, 0, 0, 0]):  # a b [c] a b ...
        table[line, token] = 5.0
    played(TablePolicy(table, eos=EOS), oracle)
    assert oracle.heard == [[[0, 1], [0, 1]]]
    lingering = Says(2, turn_ends=(), longest_turn=3, turns=2)
    played(TablePolicy(table, eos=EOS), lingering)
    assert lingering.heard == [[[0, 1, 0], [0, 1, 0]]]


def test_the_end_token_asks_for_a_last_payment_and_no_words():
    oracle = Says(2, 2, turns=9)
    rollout = played(path(0, 2, EOS), oracle)
    assert oracle.heard == [[[0, 2, EOS]]]
    assert (rollout.tokens.tolist(), rollout.terminated.tolist()) == ([[0, 2, EOS]], [True])
    assert rollout.environment_reward.tolist() == [[0, 0, 1]]


def test_a_turn_that_the_limit_cuts_is_not_answered():
    oracle = Says(2, turn_ends=())
    rollout = played(path(0, 1, 2, 0), oracle, max_length=3)
    assert oracle.heard == [[]]
    assert rollout.terminated.tolist() == [False]


# Closed tokens


def drawn(policy, oracle, size, count=300, **options):
    constraints = Constraints(no_repeat_ngram=options.pop("no_repeat_ngram", 0))
    decoder = Sample(max_length=10, samples=count, constraints=constraints, **options)
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=size - 1)))
    torch.manual_seed(0)
    return decoder.decode(policy, toy_prompts(2, same=False), oracle)


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 2}, {"top_p": 0.6}, {"temperature": 0.7, "min_p": 0.2}, {"no_repeat_ngram": 2},
     {"no_repeat_ngram": 1, "top_k": 3}, {"no_repeat_ngram": 2, "top_p": 0.7, "min_length": 3}],
    ids=lambda options: "-".join(options) or "plain",
)  # fmt: skip
def test_closed_tokens_are_never_drawn_and_the_loss_knows(options):
    """Importance ratio 1, and where the tokens are open they are drawn."""
    table = torch.randn(8, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table[:, 2] += 1.0
    closes = options.get("closes", (2, 6))
    policy, oracle = TablePolicy(table, eos=6), ToyOracle(closes=closes, longest_turn=2, turns=9, words=(3, 4, 5))
    rollout = drawn(policy, oracle, 7, **{name: value for name, value in options.items() if name != "closes"})
    closable = torch.isin(rollout.tokens, torch.tensor(closes))
    assert not (closable & rollout.closed & rollout.action_mask).any()
    assert (closable & ~rollout.closed & rollout.action_mask).sum() > 50
    recomputed = policy(rollout).logprobs.detach()
    assert torch.allclose(recomputed, rollout.logprobs.double(), atol=1e-5)
    unaware = policy(replace(rollout, closed=None)).logprobs.detach()
    assert (unaware - recomputed).abs().max() > 0.1


def test_where_tokens_are_closed_the_others_share_their_probability():
    policy = TablePolicy(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log(), eos=EOS)
    rollout = drawn(policy, ToyOracle(turn_ends=(), closes=(0, 3), longest_turn=10), 4, count=2)
    chosen = rollout.tokens[rollout.action_mask]
    expected = torch.tensor([0.0, 0.6, 0.4, 0.0])[chosen].log()
    assert torch.allclose(rollout.logprobs[rollout.action_mask], expected)
    entropy = policy(rollout).entropy[rollout.action_mask]
    assert torch.allclose(entropy.float(), torch.tensor(0.6730117))  # of .6 and .4


def test_what_is_closed_changes_with_every_reply():
    """Closed at first, open after the first answer, its words included, and so on."""
    oracle = Says(2, turn_ends=(), closes=(3,), longest_turn=2, turns=3)
    rollout = played(path(0, 1, 0, 1), oracle, max_length=20)
    assert rollout.closed.int().tolist() == [[1, 1, 0, 0, 0, 1, 1, 1, 0]]
    assert rollout.sampling.closes == (3,)
    assert played(path(0, 1, 0, 1), Says(2)).closed is None


def test_what_would_leave_nothing_is_not_closed():
    rollout = played(path(0, 1, 2, EOS), ToyOracle(closes=(0, 1, 2, EOS)))
    assert rollout.tokens[0, 0] == 0


# Whose words are learnt


def moved(loss, policy, line, token):
    """By how much a loss moves when one logit does."""
    before = loss()
    with torch.no_grad():
        policy.table[line, token] += 1.0
        after = loss()
        policy.table[line, token] -= 1.0
    return abs((after - before).item())


def test_an_environments_word_is_not_learnt_although_the_policy_says_it_too():
    """a [b] c b ...: the first b was answered, the second chosen."""
    policy = path(0, 2, 1, 2)
    with torch.no_grad():
        policy.table[2] = torch.tensor([0.0, 0.0, 5.0, 0.0])  # after b comes c
    rollout = played(policy, Says(1, turn_ends=(0,), turns=9), max_length=4)
    assert (rollout.tokens.tolist(), rollout.action_mask.int().tolist()) == ([[0, 1, 2, 1]], [[1, 0, 1, 1]])
    advantage = Advantage(rollout.action_mask.double())
    experience = Experience(rollout, RewardSignal(torch.ones(1)), advantage)
    objective = Reinforce(entropy_bonus=0.1)
    (objective.loss(policy, experience).total).backward()
    assert policy.table.grad[1].tolist() == [0, 0, 0, 0]  # after a: where the environment spoke
    assert policy.table.grad[3].abs().sum() > 0.01  # after c: where the policy said the same

    def loss():
        return objective.loss(policy, experience).total.detach()

    assert moved(loss, policy, 1, 1) == 0
    assert moved(loss, policy, 3, 1) > 0.001


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_human_answers_are_not_learnt_where_the_target_mask_says_so(smoothing):
    targets = torch.tensor([[0, 1, 2, EOS]])
    prompts = replace(
        toy_prompts(),
        targets=targets,
        target_lengths=torch.tensor([4]),
        target_mask=torch.tensor([[True, False, True, True]]),
    )
    policy, objective = path(0, 2, 1, 2), CrossEntropy(smoothing)
    experience = Experience(expert=Rollout.of_targets(prompts))
    assert experience.expert.action_mask.int().tolist() == [[1, 0, 1, 1]]
    assert objective.count(experience) == 3

    def loss():
        return objective.loss(policy, experience).total.detach()

    assert [moved(loss, policy, 1, token) for token in range(4)] == [0, 0, 0, 0]
    assert moved(loss, policy, 0, 0) > 0.001
    assert moved(loss, policy, 2, 2) > 0.001


def test_prompts_know_their_learnt_targets_by_row():
    prompts = Prompts(
        torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, dtype=torch.long), torch.arange(2),
        targets=torch.tensor([[0, 1], [2, 3]]), target_lengths=torch.tensor([2, 1]),
        target_mask=torch.tensor([[False, True], [True, True]]),
    )  # fmt: skip
    assert Rollout.of_targets(prompts).action_mask.tolist() == [[False, True], [True, False]]
    swapped = prompts.select(torch.tensor([1, 0]))
    assert Rollout.of_targets(swapped).action_mask.tolist() == [[True, False], [False, True]]
    longer = replace(swapped, targets=torch.ones(2, 3, dtype=torch.long), target_mask=torch.ones(2, 3).bool())
    assert Prompts.cat([prompts, longer]).target_mask.int().tolist() == [[0, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]


def test_a_reply_without_words_pays_and_goes_on():
    class Nods(ToyOracle):
        def reply(self, state, said):
            return Reply(reward=0.5)

    rollout = played(path(0, 1, 2, EOS), Nods(turn_ends=(0, 2)))
    assert rollout.tokens.tolist() == [[0, 1, 2, EOS]]
    assert rollout.environment_reward.tolist() == [[0.5, 0, 0.5, 0.5]]

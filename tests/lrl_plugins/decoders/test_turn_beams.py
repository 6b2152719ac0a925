"""Beam search in a conversation: against greedy, against enumeration, against itself."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.testing.environments import ToyOracle
from lrl_core.testing.parts import EOS
from lrl_core.testing.policies import bound, example_facts, example_prompts, example_tokenizer
from lrl_core.testing.toy import TablePolicy, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.types import Reply
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.beams import length_penalty
from lrl_plugins.decoders.diverse_beam import DiverseBeam
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Greedy
from lrl_plugins.policies.causal_lm import CausalLM

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 64, "initializer_range": 0.3}
ORACLES = {
    "words": lambda: ToyOracle(),
    "impatient": lambda: ToyOracle(turn_ends=(), longest_turn=2, turns=5),
    "closing": lambda: ToyOracle(closes=(0, EOS), longest_turn=3, turns=4),
    "two-ends": lambda: ToyOracle(turn_ends=(1, 2), turns=4),
}
CONSTRAINTS = [None, Constraints(no_repeat_ngram=3), Constraints(opening=(2, 0)), Constraints(end_at_limit=True)]


def make(decoder):
    bind_all(decoder, toy_facts(ToyTokenizer(4, eos=EOS)))
    return decoder


def random_policy(seed):
    """One that likes to hand over with b and does not like to end."""
    table = 2 * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table += torch.tensor([0.0, 1.0, 0.0, -2.0])
    return TablePolicy(table, eos=EOS)


def same(one, other):
    """The same episodes, padded to whatever width."""
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.lengths.tolist() == other.lengths.tolist()
    assert one.action_mask.tolist() == other.action_mask.tolist()
    assert one.terminated.tolist() == other.terminated.tolist()
    assert one.environment_reward.tolist() == other.environment_reward.tolist()
    assert one.sampling == other.sampling
    assert torch.allclose(one.logprobs.double(), other.logprobs.double(), atol=1e-5)
    assert (one.closed is None) == (other.closed is None)
    if one.closed is not None:
        assert one.closed[one.action_mask].tolist() == other.closed[other.action_mask].tolist()


@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=["free", "no-repeat", "opening", "end"])
@pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES.keys())
def test_a_beam_of_one_is_greedy(seed, constraints, oracle):
    policy, prompts, theirs, ours = random_policy(seed), toy_prompts(6, same=False), oracle(), oracle()
    greedy = make(Greedy(max_length=12, constraints=constraints)).decode(policy, prompts, theirs)
    beam = make(BeamSearch(1, 12, length_alpha=0.0, constraints=constraints)).decode(policy, prompts, ours)
    same(beam, greedy)
    assert ours.heard == theirs.heard
    assert len(set(map(str, ours.heard))) > 1  # the conversations are not all the same


def language_model():
    tokenizer = example_tokenizer()
    prompts = replace(example_prompts(tokenizer), group=torch.arange(5))
    facts = example_facts(tokenizer, prompts)
    return bound(lambda: CausalLM(config=GPT2), facts, seed=2).eval(), facts, prompts


def oracle_of_words():
    return ToyOracle(turn_ends=(5, 6, 7, 8), longest_turn=4, closes=(9, 10, 11), turns=4, words=(12, 13, 14))


def test_a_beam_of_one_is_greedy_with_a_language_model():
    policy, facts, prompts = language_model()
    decoders = Greedy(max_length=30), BeamSearch(1, 30, length_alpha=0.0)
    for decoder in decoders:
        bind_all(decoder, facts)
    greedy, beam = (decoder.decode(policy, prompts, oracle_of_words()) for decoder in decoders)
    same(beam, greedy)
    assert len(set(beam.lengths.tolist())) > 1


@pytest.mark.parametrize("width", [2, 5])
def test_conversations_of_a_batch_are_those_played_alone(width):
    policy, facts, prompts = language_model()
    decoder = BeamSearch(width, 30)
    bind_all(decoder, facts)
    together = decoder.decode(policy, prompts, oracle_of_words())
    for row in range(len(prompts)):
        one = torch.tensor([row])
        same(together.select(one).trimmed(), decoder.decode(policy, prompts.select(one), oracle_of_words()))
    assert len(set(together.lengths.tolist())) > 1


@pytest.mark.parametrize("constraints", [None, Constraints(no_repeat_ngram=2)], ids=["free", "no-repeat"])
def test_the_policy_reads_the_recorded_log_probabilities_off_the_finished_line(constraints):
    policy, facts, prompts = language_model()
    decoder = BeamSearch(3, 16, constraints=constraints)
    bind_all(decoder, facts)
    rollout = decoder.decode(policy, prompts, oracle_of_words())
    assert rollout.closed.any()
    with torch.no_grad():
        assert torch.allclose(policy(rollout).logprobs, rollout.logprobs, atol=1e-5)


def best_turn(table, line, ends, longest, closed, alpha, kind):
    """The best of all turns that may follow a line, by listing them; closed tokens have no probability."""
    allowed = torch.ones(4, dtype=torch.bool)
    allowed[list(closed)] = False
    found = []
    for words in product(range(4), repeat=longest):
        cut = next((i + 1 for i, word in enumerate(words) if word in ends), longest)
        raw, before = 0.0, line[-1] if line else None
        for word in words[:cut]:
            logits = table[0 if before is None else 1 + before].masked_fill(~allowed, -torch.inf)
            raw, before = raw + logits.log_softmax(0)[word].item(), word
        found.append((raw / length_penalty(cut, alpha, kind), list(words[:cut])))
    return max(found)[1]


def enumerated(policy, oracle, max_length, alpha, kind):
    """A conversation in which every turn is the best of all possible ones."""
    (state,) = oracle.start(toy_prompts(1, same=False))
    line, closed = [], oracle.closes if oracle.closed(state) else ()
    ends = {EOS, *oracle.turn_ends}
    while True:
        longest = min(oracle.longest_turn, max_length - len(line))
        said = best_turn(policy.table.detach(), line, ends, longest, closed, alpha, kind)
        line += said
        if len(line) == max_length and said[-1] not in ends and len(said) < oracle.longest_turn:
            return line
        reply = oracle.reply(state, said)
        if said[-1] == EOS:
            return line
        line = (line + list(reply.tokens))[:max_length]
        if reply.done or len(line) == max_length:
            return line
        closed = oracle.closes if oracle.closed(state) else ()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("alpha", "kind"), [(0.0, "average"), (1.0, "average"), (0.6, "gnmt")])
@pytest.mark.parametrize("closes", [(), (0, EOS)])
def test_a_beam_that_holds_every_prefix_finds_the_best_of_each_turn(seed, alpha, kind, closes):
    policy, oracles = random_policy(seed), [ToyOracle(closes=closes, longest_turn=3) for _ in range(2)]
    decoder = make(BeamSearch(64, 10, length_alpha=alpha, normalisation=kind))
    rollout = decoder.decode(policy, toy_prompts(1, same=False), oracles[0])
    assert rollout.tokens[0].tolist() == enumerated(policy, oracles[1], 10, alpha, kind)
    assert oracles[0].heard == oracles[1].heard


class Silent(ToyOracle):
    def reply(self, state, said):
        super().reply(state, said)
        return Reply()


@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=["free", "no-repeat", "opening", "end"])
@pytest.mark.parametrize("seed", range(3))
def test_where_nobody_interrupts_it_is_beam_search(seed, constraints):
    decoder = make(BeamSearch(3, 8, length_alpha=0.8, normalisation="gnmt", constraints=constraints))
    policy, prompts = random_policy(seed), toy_prompts(3, same=False)
    alone, heard = decoder.decode(policy, prompts), decoder.decode(policy, prompts, Silent(turn_ends=()))
    same(replace(alone, environment_reward=torch.zeros(alone.tokens.shape)), heard)


def test_an_answer_is_cut_where_the_line_is_full():
    """c c b [answer of two words, of which one has room]."""
    table = torch.full((5, 4), -9.0)
    for line, token in enumerate([2, 1, 1, 1, 1]):
        table[line, token] = 9.0

    class Talkative(ToyOracle):
        def reply(self, state, said):
            return Reply([2, 0], reward=0.5, done=True)

    cut = make(BeamSearch(2, 3)).decode(TablePolicy(table, eos=EOS), toy_prompts(), Talkative())
    assert (cut.tokens.tolist(), cut.terminated.tolist()) == ([[2, 1, 2]], [False])
    whole = make(BeamSearch(2, 4)).decode(TablePolicy(table, eos=EOS), toy_prompts(), Talkative())
    assert (whole.tokens.tolist(), whole.terminated.tolist()) == ([[2, 1, 2, 0]], [True])
    assert whole.action_mask.int().tolist() == [[1, 1, 0, 0]]
    assert whole.environment_reward.tolist() == [[0, 0.5, 0, 0]]


class Broken(ToyOracle):
    def reply(self, state, said):
        raise KeyError("no such object")


class Foreign(ToyOracle):
    def reply(self, state, said):
        return Reply([99])


@pytest.mark.parametrize(
    ("oracle", "error", "message"),
    [
        (Broken, RuntimeError, r"Environment Broken, episode 0: raised KeyError.*so far: \[\d"),
        (Foreign, ValueError, r"Foreign, episode 0: said token ids \[99\]; expected ids from 0 to 3"),
    ],
)
def test_an_environment_that_fails_is_named_as_elsewhere(oracle, error, message):
    with pytest.raises(error, match=message):
        make(BeamSearch(2, 8)).decode(random_policy(0), toy_prompts(), oracle())


def test_diverse_beams_say_who_can_play():
    with pytest.raises(ValueError, match=r"DiverseBeam cannot play.*ToyOracle.*Use Greedy, Sample or BeamSearch"):
        make(DiverseBeam(max_length=8)).decode(random_policy(0), toy_prompts(), ToyOracle())


def test_a_beam_goes_on_however_many_ways_there_are_to_end():
    """b, c and the end are more probable than a, but "ab" is worth log .2 / 2 = -.80 and "b" log .3 = -1.20."""
    table = torch.tensor([[0.2, 0.3, 0.28, 0.22], [1e-9, 1.0, 1e-9, 1e-9]] + [[0.25] * 4] * 3).double().log()
    oracle = ToyOracle(turn_ends=(1, 2), turns=1)
    make(BeamSearch(1, 8)).decode(TablePolicy(table, eos=EOS), toy_prompts(), oracle)
    assert oracle.heard == [[[0, 1]]]

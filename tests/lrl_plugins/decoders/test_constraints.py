"""No repeated n-gram, a forced opening, a forced end: for every decoder, and exactly recomputed by the loss."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from scipy.stats import chisquare

from lrl_core.interfaces import Decoder, bind_all
from lrl_core.testing.parts import EOS, bigram_world, check_decoder
from lrl_core.testing.policies import example_facts, example_prompts, example_tokenizer
from lrl_core.testing.toy import TablePolicy, ToyTokenizer, toy_facts, toy_prompts
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.diverse_beam import DiverseBeam
from lrl_plugins.decoders.length_controlled import LengthControlled
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.decoders.uncertainty import Uncertainty
from lrl_plugins.policies.recurrent import Recurrent

CONSTRAINTS = {
    "bigrams": Constraints(no_repeat_ngram=2),
    "tokens": Constraints(no_repeat_ngram=1, end_at_limit=True),
    "opening": Constraints(opening="ab"),
    "ids": Constraints(opening=(2, 2, 1), no_repeat_ngram=3),
    "end": Constraints(end_at_limit=True),
}
DECODERS = {
    "sample": lambda c: Sample(max_length=6, samples=4, constraints=c),
    "truncated": lambda c: Sample(
        max_length=6, samples=4, temperature=0.8, top_k=3, top_p=0.9, min_p=0.05, constraints=c
    ),
    "min_length": lambda c: Sample(max_length=6, samples=4, min_length=5, constraints=c),
    "greedy": lambda c: Greedy(max_length=6, constraints=c),
    "beam": lambda c: BeamSearch(width=3, max_length=6, constraints=c),
    "diverse": lambda c: DiverseBeam(max_length=6, every_group=True, constraints=c),
    "uncertainty": lambda c: Uncertainty(max_length=6, passes=3, constraints=c),
    "length": lambda c: LengthControlled(target=5, max_length=6, constraints=c),
}


def bound(decoder, size=4, eos=EOS):
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=eos)))
    return decoder


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_conforms(decoder, constraint):
    check_decoder(lambda: DECODERS[decoder](CONSTRAINTS[constraint]))


def lines(rollout):
    pairs = zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)
    return [tuple(tokens[:length]) for tokens, length in pairs]


def grams(line, n):
    return [line[i : i + n] for i in range(len(line) - n + 1)]


def by_hand(table, line, n, length):
    """Probability of an episode without repeated n-grams, one ban at a time."""
    probability = 1.0
    for t, token in enumerate(line):
        row = table[0 if t == 0 else 1 + line[t - 1]].exp()
        for other in range(3):
            if (*line[max(0, t - n + 1) : t], other) in grams(line[:t], n):
                row[other] = 0
        probability *= float(row[token] / row.sum())
    return probability


@pytest.mark.parametrize("n", [1, 2])
def test_drawn_frequencies_are_those_of_the_banned_distribution(n):
    policy, _ = bigram_world()
    table = policy.table.detach()
    ends = [line for k in range(1, 5) for line in product(range(4), repeat=k) if EOS not in line[:-1]]
    whole = [line for line in ends if line[-1] == EOS or len(line) == 4]
    expected = {line: by_hand(table, line, n, 4) for line in whole}
    assert sum(expected.values()) == pytest.approx(1)
    torch.manual_seed(5)
    decoder = bound(Sample(max_length=4, samples=20_000, constraints=Constraints(no_repeat_ngram=n)))
    rollout = decoder.decode(policy, toy_prompts())
    counts = Counter(lines(rollout))
    assert not [line for line in counts if expected[line] == 0]
    possible = [line for line in whole if expected[line] > 0]
    observed = np.array([counts[line] for line in possible])
    assert chisquare(observed, np.array([expected[line] for line in possible]) * 20_000).pvalue > 1e-3
    first = {line: float(p) for line, p in zip(lines(rollout), rollout.logprobs.sum(1).exp(), strict=True)}
    assert all(p == pytest.approx(expected[line]) for line, p in first.items())


def test_the_gradient_is_that_of_the_banned_distribution():
    policy, _ = bigram_world()
    torch.manual_seed(0)
    decoder = bound(Sample(max_length=6, samples=16, top_k=3, constraints=Constraints(no_repeat_ngram=2)))
    rollout = decoder.decode(policy, toy_prompts())
    slopes = torch.linspace(-1, 1, 16, dtype=torch.float64)
    (policy(rollout).logprobs.sum(1) * slopes).sum().backward()
    table = policy.table.detach().clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    banned_once = False
    for line, slope in zip(lines(rollout), slopes, strict=True):
        for t, token in enumerate(line):
            row = table[0 if t == 0 else 1 + line[t - 1]]
            allowed = [v for v in range(4) if v == EOS or (*line[max(0, t - 1) : t], v) not in grams(line[:t], 2)]
            banned_once |= len(allowed) < 4
            kept = sorted(allowed, key=lambda v: -float(row.detach()[v]))[:3]
            total = total + slope * (row[token] - row[kept].logsumexp(0))
    assert banned_once
    total.backward()
    assert torch.allclose(policy.table.grad, table.grad, atol=1e-10)


def test_entropy_stop_and_normaliser_know_the_bans():
    policy, _ = bigram_world()
    decoder = bound(Sample(max_length=3, constraints=Constraints(no_repeat_ngram=1, opening=(0, 1))))
    output = policy(decoder.decode(policy, toy_prompts()))
    left = policy.table.detach()[2][[2, EOS]]  # after b, with a and b already said
    assert output.log_z[0, 2].item() == pytest.approx(left.logsumexp(0).item())
    assert output.log_stop[0, 2].item() == pytest.approx(left.log_softmax(0)[1].item())
    two = left.softmax(0)
    assert output.entropy[0, 2].item() == pytest.approx(-(two * two.log()).sum().item())


@pytest.mark.parametrize("name", ["sample", "truncated", "min_length", "greedy", "beam", "diverse"])
@pytest.mark.parametrize("constraints", [Constraints(2), Constraints(1, end_at_limit=True), Constraints(3, (7, 8, 7))])
def test_the_ratio_of_a_recurrent_policy_is_one(name, constraints):
    torch.manual_seed(0)
    tokenizer = example_tokenizer()
    prompts = example_prompts(tokenizer)
    policy, decoder = Recurrent(embedding=8, hidden=16), DECODERS[name](constraints)
    for part in (policy, decoder):
        bind_all(part, example_facts(tokenizer, prompts))
    for parameter in policy.parameters():
        parameter.data.mul_(4)
    rollout = decoder.decode(policy.eval(), prompts)
    ratio = (policy(rollout).logprobs.detach() - rollout.logprobs).exp()
    assert (ratio - 1).abs().max() < 1e-4


def stubborn():
    """Always a, unless it may not."""
    return TablePolicy([[3.0, 2.0, 1.0, 0.0]], eos=EOS)


@pytest.mark.parametrize("make", [Greedy, lambda **options: BeamSearch(1, **options)])
def test_greedy_and_beam_avoid_what_was_said(make):
    decoder = bound(make(max_length=9, constraints=Constraints(no_repeat_ngram=1)))
    assert lines(decoder.decode(stubborn(), toy_prompts())) == [(0, 1, 2, EOS)]
    decoder = bound(make(max_length=6, constraints=Constraints(no_repeat_ngram=2)))
    assert lines(decoder.decode(stubborn(), toy_prompts())) == [(0, 0, 1, 0, 2, 0)]


def test_where_nothing_else_is_left_the_repetition_is_allowed():
    decoder = bound(Greedy(max_length=6, min_length=5, constraints=Constraints(no_repeat_ngram=1)))
    rollout = decoder.decode(stubborn(), toy_prompts())
    assert lines(rollout) == [(0, 1, 2, 0, EOS)]
    assert torch.allclose(stubborn()(rollout).logprobs, rollout.logprobs.double())


@pytest.mark.parametrize("make", [Greedy, BeamSearch, Sample])
def test_an_opening_is_no_action_and_the_policy_reads_it(make):
    table = torch.zeros(5, 4)
    for line, token in enumerate([0, 1, 2, 3, 3]):  # a b c EOS
        table[line, token] = 9.0
    decoder = bound(make(max_length=5, constraints=Constraints(opening="ab")))
    torch.manual_seed(0)
    rollout = decoder.decode(TablePolicy(table, eos=EOS), toy_prompts())
    assert lines(rollout) == [(0, 1, 2, EOS)]
    assert rollout.action_mask.tolist() == [[False, False, True, True]]
    rival = decoder.greedy().decode(TablePolicy(table, eos=EOS), toy_prompts())
    assert lines(rival) == [(0, 1, 2, EOS)]


def test_the_end_is_forced_at_the_limit_with_probability_one():
    decoder = bound(Sample(max_length=3, samples=50, constraints=Constraints(end_at_limit=True)))
    rollout = decoder.decode(bigram_world()[0], toy_prompts())
    assert rollout.terminated.all()
    full = rollout.lengths == 3
    assert full.any()
    assert (rollout.tokens[full, 2] == EOS).all()
    assert (rollout.logprobs[full, 2] == 0).all()


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(opening=(9,)), r"\[9\] are no ordinary tokens"),
        (Constraints(opening="abcabc"), "has 6 tokens and max_length is 5"),
    ],
)
def test_refuses_openings_that_cannot_be(constraints, message):
    with pytest.raises(ValueError, match=message):
        bound(Sample(max_length=5, constraints=constraints))


def test_refuses_what_the_task_cannot_do():
    with pytest.raises(ValueError, match="end_at_limit needs an end token"):
        bound(Sample(max_length=5, constraints=Constraints(end_at_limit=True)), eos=-1)
    with pytest.raises(ValueError, match="all 4 tokens are banned"):
        bound(Sample(banned=(0, 1, 2, 3)))
    with pytest.raises(ValueError, match="no_repeat_ngram is -1"):
        Sample(constraints=Constraints(no_repeat_ngram=-1))


@pytest.mark.parametrize(("written", "read"), [("a photo of", "a photo of"), ([3, 4], (3, 4))])
def test_a_recipe_can_write_them(written, read):
    parser = ArgumentParser()
    parser.add_subclass_arguments(Decoder, "decoder")
    path = "lrl_plugins.decoders.sample.Sample"
    config = {"class_path": path, "init_args": {"constraints": {"no_repeat_ngram": 3, "opening": written}}}
    decoder = parser.instantiate_classes(parser.parse_object({"decoder": config})).decoder
    assert decoder.constraints == Constraints(3, read)

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from lrl_core.interfaces import bind_all
from lrl_core.testing.parts import EOS, bigram_world, check_decoder
from lrl_core.testing.toy import (
    TREE_TABLE,
    TablePolicy,
    ToyTokenizer,
    every_episode,
    toy_facts,
    toy_prompts,
    tree_world,
)
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.beams import length_penalty
from lrl_plugins.decoders.sample import Greedy, Sample


def bound(decoder, size=4, eos=EOS):
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=eos)))
    return decoder


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sample(max_length=8),
        lambda: Sample(max_length=8, samples=5, temperature=0.7),
        lambda: Sample(max_length=8, samples=3, top_k=2),
        lambda: Sample(max_length=8, samples=3, top_p=0.6),
        lambda: Sample(max_length=8, samples=3, min_p=0.4, min_length=3, banned=(1,)),
        lambda: Greedy(max_length=8, min_length=2),
        lambda: BeamSearch(width=3, max_length=8),
        lambda: BeamSearch(width=6, max_length=8, length_alpha=0.0, min_length=3),
        lambda: BeamSearch(width=2, max_length=8, normalisation="gnmt", banned=(0,)),
    ],
    ids=["plain", "temperature", "top_k", "top_p", "min_p", "greedy", "beam", "wide-beam", "gnmt"],
)
def test_conforms(make):
    check_decoder(make)


def frequencies(decoder, policy, lines):
    torch.manual_seed(3)
    rollout = decoder.decode(policy, toy_prompts())
    pairs = zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)
    counts = dict.fromkeys(lines, 0)
    for tokens, length in pairs:
        counts[tuple(tokens[:length])] += 1
    return np.array([counts[line] for line in lines])


def test_sampling_frequencies_match_enumeration():
    policy, _ = bigram_world()
    everything, probability = every_episode(policy, 3)
    pairs = zip(everything.tokens.tolist(), everything.lengths.tolist(), strict=True)
    lines = [tuple(tokens[:length]) for tokens, length in pairs]
    counts = frequencies(bound(Sample(max_length=3, samples=100_000)), policy, lines)
    assert chisquare(counts, probability.numpy() * 100_000).pvalue > 1e-3


def test_truncated_frequencies_match_the_renormalised_distribution():
    policy = TablePolicy([[0.5, 0.3, 0.15, 0.05]], eos=None)
    policy.table.data.log_()
    counts = frequencies(
        bound(Sample(max_length=1, samples=50_000, top_p=0.81), eos=-1), policy, [(0,), (1,), (2,), (3,)]
    )
    assert counts[3] == 0
    assert chisquare(counts[:3], np.array([0.5, 0.3, 0.15]) / 0.95 * 50_000).pvalue > 1e-3


def test_greedy_takes_the_best_token_each_time():
    policy, _ = tree_world()
    rollout = bound(Greedy(max_length=2), 3, -1).decode(policy, toy_prompts())
    assert rollout.tokens.tolist() == [[2, 1]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("normalisation", ["average", "gnmt"])
def test_a_beam_that_holds_every_prefix_finds_the_enumerated_mode(seed, alpha, normalisation):
    table = 2 * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    policy = TablePolicy(table, eos=EOS)
    everything, probability = every_episode(policy, 3)
    score = probability.log() / length_penalty(everything.lengths, alpha, normalisation)
    best = int(score.argmax())
    decoder = bound(BeamSearch(width=16, max_length=3, length_alpha=alpha, normalisation=normalisation))
    rollout = decoder.decode(policy, toy_prompts())
    assert (
        rollout.tokens[0, : rollout.lengths[0]].tolist() == everything.tokens[best, : everything.lengths[best]].tolist()
    )
    assert rollout.logprobs.sum().item() == pytest.approx(probability[best].log().item())


def test_beam_as_wide_as_the_vocabulary_finds_the_mode_of_the_tree():
    policy = TablePolicy(TREE_TABLE)
    table = torch.tensor(TREE_TABLE).double()
    scores = {
        (a, b): (table[0].log_softmax(0)[a] + table[1 + a].log_softmax(0)[b]).item()
        for a, b in product(range(3), repeat=2)
    }
    rollout = bound(BeamSearch(width=3, max_length=2), 3, -1).decode(policy, toy_prompts())
    assert tuple(rollout.tokens[0].tolist()) == max(scores, key=scores.get)


def test_a_beam_of_one_is_greedy():
    policy, _ = bigram_world()
    prompts = toy_prompts(2, same=False)
    beam = bound(BeamSearch(width=1, max_length=6, length_alpha=0.0)).decode(policy, prompts)
    greedy = bound(Greedy(max_length=6)).decode(policy, prompts)
    assert beam.tokens.tolist() == greedy.tokens.tolist()


def test_length_normalisation_by_hand():
    short, long = -2.0, -2.7
    assert short / length_penalty(2, 1.0, "average") < long / length_penalty(3, 1.0, "average")
    assert short / length_penalty(2, 1.0, "gnmt") == pytest.approx(-1.714, abs=1e-3)
    assert long / length_penalty(3, 1.0, "gnmt") == pytest.approx(-2.025, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sample(max_length=0), "max_length 0"),
        (lambda: Sample(samples=0), "0 episodes"),
        (lambda: Greedy(max_length=3, min_length=4), "min_length 4 is above"),
        (lambda: Sample(top_p=1.5), "top_p is 1.5"),
        (lambda: BeamSearch(length_alpha=-1), "length_alpha is -1"),
    ],
)
def test_refuses_limits_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()

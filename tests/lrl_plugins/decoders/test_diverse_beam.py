import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.testing.parts import EOS, check_decoder
from lrl_core.testing.toy import TablePolicy, ToyTokenizer, toy_facts, toy_prompts
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.beams import length_penalty
from lrl_plugins.decoders.diverse_beam import DiverseBeam


def bound(decoder, size=4, eos=EOS):
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=eos)))
    return decoder


def random_policy(seed):
    table = 1.5 * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return TablePolicy(table, eos=EOS)


@pytest.mark.parametrize("options", [{}, {"every_group": True, "groups": 4}, {"width": 6, "strength": 3.0}])
def test_conforms(options):
    check_decoder(lambda: DiverseBeam(max_length=8, **options))


# log .5 = -.693, log .3 = -1.204, log .15 = -1.897, log .05 = -2.996
@pytest.mark.parametrize(
    ("strength", "taken"), [(0.0, [0, 0, 0]), (0.2, [0, 0, 0]), (0.3, [0, 0, 1]), (1.0, [0, 1, 0]), (2.0, [0, 1, 2])]
)
def test_later_beams_avoid_what_earlier_ones_took(strength, taken):
    policy = TablePolicy(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log())
    decoder = bound(DiverseBeam(3, 1, strength, every_group=True, max_length=1), eos=-1)
    rollout = decoder.decode(policy, toy_prompts())
    assert rollout.tokens[:, 0].tolist() == taken
    own = torch.tensor([0.5, 0.3, 0.15]).log()[taken]  # the handicap is no part of the log-probability
    assert torch.allclose(rollout.logprobs[:, 0].float(), own)


def test_a_wide_beam_counts_all_that_it_took():
    policy = TablePolicy(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log())
    decoder = bound(DiverseBeam(2, 2, 5.0, every_group=True, max_length=1), eos=-1)
    assert decoder.decode(policy, toy_prompts()).tokens[:, 0].tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(4))
def test_one_group_is_beam_search(seed):
    policy, prompts = random_policy(seed), toy_prompts(2, same=False)
    one = bound(DiverseBeam(1, 3, 2.0, max_length=6)).decode(policy, prompts)
    beam = bound(BeamSearch(3, max_length=6)).decode(policy, prompts)
    assert one.tokens.equal(beam.tokens)
    assert torch.allclose(one.logprobs, beam.logprobs)


@pytest.mark.parametrize("seed", range(4))
def test_without_strength_all_groups_are_beam_search(seed):
    policy, prompts = random_policy(seed), toy_prompts(2, same=False)
    beam = bound(BeamSearch(3, max_length=6)).decode(policy, prompts)
    every = bound(DiverseBeam(3, 3, 0.0, every_group=True, max_length=6)).decode(policy, prompts)
    assert every.tokens.equal(beam.tokens.repeat_interleave(3, 0))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_best_of_all_groups_is_returned(seed):
    policy, prompts = random_policy(seed), toy_prompts()
    every = bound(DiverseBeam(3, 2, 1.5, every_group=True, max_length=6)).decode(policy, prompts)
    best = bound(DiverseBeam(3, 2, 1.5, max_length=6)).decode(policy, prompts)
    scores = every.logprobs.sum(1) / length_penalty(every.lengths, 1.0, "average")
    row = int(scores.argmax())
    assert best.tokens[0].tolist() == every.tokens[row, : int(best.lengths)].tolist()
    assert len({tuple(line) for line in every.tokens.tolist()}) > 1


@pytest.mark.parametrize("options", [{"groups": 0}, {"width": 0}, {"strength": -1.0}, {"length_alpha": -1.0}])
def test_refuses_numbers_that_make_no_sense(options):
    with pytest.raises(ValueError, match="expected both >="):
        DiverseBeam(**options)

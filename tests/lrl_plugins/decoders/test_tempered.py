"""Temperatures that change from batch to batch, and log-probabilities that know it."""

import pytest
import torch
from scipy.stats import kstest

from lrl_core.interfaces import bind_all
from lrl_core.testing.parts import bigram_world, check_decoder
from lrl_core.testing.toy import TablePolicy, ToyTokenizer, toy_facts, toy_prompts
from lrl_plugins.decoders.best_of_n import BestOfN
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.decoders.tempered import Tempered

torch.set_num_threads(1)


def bound(**options):
    decoder = Tempered(Sample(max_length=3, samples=2, constraints=Constraints(end_at_limit=True)), **options)
    bind_all(decoder, toy_facts(ToyTokenizer(4, eos=3)))
    return decoder


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_conforms(share):
    check_decoder(lambda: Tempered(Sample(max_length=8, samples=2, top_p=0.9), share=share))


def test_the_ratio_is_one_at_every_temperature():
    torch.manual_seed(0)
    policy, decoder = bigram_world()[0], bound(low=0.2, high=5.0)
    seen = set()
    for _ in range(20):
        rollout = decoder.decode(policy, toy_prompts(3))
        seen.add(rollout.sampling.temperature)
        assert torch.allclose(policy(rollout).logprobs.detach().float(), rollout.logprobs, atol=1e-5)
        assert rollout.sampling.limit == 3
    assert len(seen) > 5


def test_temperatures_are_uniform_in_the_given_share_of_batches():
    torch.manual_seed(0)
    policy, decoder = bigram_world()[0], bound(low=0.5, high=2.0, share=0.667)
    drawn = [decoder.decode(policy, toy_prompts()).sampling.temperature for _ in range(300)]
    tempered = [temperature for temperature in drawn if temperature != 1]
    assert len(tempered) == pytest.approx(200, abs=30)
    assert kstest(tempered, "uniform", args=(0.5, 1.5)).pvalue > 1e-3
    assert decoder.sampling.temperature == decoder.decoder.sampling.temperature == 1


def test_a_failure_leaves_the_inner_decoder_as_it_was():
    decoder = bound(share=1.0)
    with pytest.raises(IndexError):
        decoder.decode(TablePolicy(torch.zeros(2, 4), eos=3), toy_prompts())  # its table ends before the letter b
    assert decoder.sampling.temperature == 1


def test_it_hands_on_what_the_inner_decoder_is():
    decoder = bound()
    assert decoder.draws
    assert decoder.samples == 2
    assert decoder.greedy().max_length == 3
    rollout = decoder.complete(bigram_world()[0], toy_prompts(2), [[0], [1, 2]])
    assert rollout.tokens[:, 0].tolist() == [0, 1]


def test_refusals():
    with pytest.raises(ValueError, match="BestOfN does not draw"):
        Tempered(BestOfN())
    for wrong in ({"low": 0.0}, {"low": 3.0}, {"share": 1.5}):
        with pytest.raises(ValueError, match="expected 0 < low <= high"):
            Tempered(**wrong)

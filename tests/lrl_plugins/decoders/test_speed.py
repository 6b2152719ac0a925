"""What makes decoding fast changes no answer: rows that leave, a shared reading of prompts, the way around modules."""

import pytest
import torch

from lrl_core.drawing import draw
from lrl_core.testing.policies import bound, example_facts, example_prompts, example_tokenizer
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.diverse_beam import DiverseBeam
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER, (2, 3, 1, 2, 3, 1, 2), list(range(7)))
FACTS = example_facts(TOKENIZER, PROMPTS)
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.4}
MARIAN = {"model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "init_std": 0.4}
MARIAN |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
MARIAN |= {"max_position_embeddings": 32}
POLICIES = {"gpt2": lambda: CausalLM(config=GPT2), "marian": lambda: Seq2SeqLM(config=MARIAN)}
DECODERS = {
    "greedy": lambda: Greedy(max_length=12),
    "beam": lambda: BeamSearch(width=3, max_length=12),
    "diverse beam": lambda: DiverseBeam(groups=2, max_length=12),
    "sample": lambda: Sample(max_length=12, samples=3),
}


def drawn_by_what_was_said(scaled):
    """A draw whose random number is a function of the logits: the same whatever else is in the batch."""
    return draw(scaled, (scaled.amax(1) * 50).round() * 0.618 % 1)


def answers(rollout):
    lines = zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)
    return [tokens[:length] for tokens, length in lines]


def often_met(lines):
    """The token that the answers reach at the most different places."""
    places = {token: {line.index(token) for line in lines if token in line} for line in lines for token in line}
    return max(places, key=lambda token: len(places[token]))


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_answers_are_those_of_each_prompt_alone_played_plainly(policy, decoder, monkeypatch):
    monkeypatch.setattr("lrl_plugins.decoders.sample.draw", drawn_by_what_was_said)
    policy = bound(policy, FACTS, seed=0).eval()
    decoder = decoder()
    decoder.bind(FACTS)
    assert policy.reader.steps
    decoder.eos = often_met(answers(decoder.decode(policy, PROMPTS)))  # so that rows leave at different times
    fast = answers(decoder.decode(policy, PROMPTS))
    policy.reader.steps = False
    monkeypatch.setattr("lrl_core.episodes.COMPACT_BELOW", 0.0)
    monkeypatch.setattr("lrl_plugins.decoders.beams.COMPACT_BELOW", 0.0)
    plain = [
        line
        for row in range(len(PROMPTS))
        for line in answers(decoder.decode(policy, PROMPTS.select(torch.tensor([row]))))
    ]
    assert fast == plain
    assert len({len(line) for line in fast}) > 1

"""The way around a decoder's modules gives their numbers, follows their weights, and knows where it ends."""

import pytest
import torch

from lrl_core.testing.policies import bound, example_facts, example_prompts, example_tokenizer
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.steps import steps_of
from lrl_plugins.policies.trained import Trained

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER)
FACTS = example_facts(TOKENIZER, PROMPTS)
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.3}
MARIAN = {"model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "init_std": 0.3}
MARIAN |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
MARIAN |= {"max_position_embeddings": 32, "scale_embedding": True, "activation_function": "swish"}


def gpt2(**options):
    return bound(lambda: CausalLM(config=GPT2, **options), FACTS, seed=0).eval()


def marian():
    return bound(lambda: Seq2SeqLM(config=MARIAN), FACTS, seed=0).eval()


@torch.no_grad()
def logits_after(policy, around, rows=(0, 0, 2, 4, 4)):
    """Four tokens later, with rows that were repeated and one that left."""
    policy.reader.steps = around
    logits, state = policy.begin(PROMPTS)
    state = state.select(torch.tensor(rows))
    tokens = torch.arange(5, 5 + len(rows))
    said = [logits]
    for step in range(4):
        if step == 2:
            keep = torch.tensor([0, 4, 2])
            state, tokens = state.select(keep), tokens[keep]
        logits, state = policy.step(tokens, state)
        said.append(logits)
    assert (state.steps is not None) == around
    return said


@pytest.mark.parametrize("make", [gpt2, marian], ids=["gpt2", "marian"])
def test_gives_the_numbers_of_the_modules(make):
    policy = make()
    assert policy.reader.steps
    for around, through in zip(logits_after(policy, True), logits_after(policy, False), strict=True):
        torch.testing.assert_close(around, through, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [gpt2, marian], ids=["gpt2", "marian"])
def test_follows_the_weights(make):
    policy = make()
    before = logits_after(policy, True)[-1]
    with torch.no_grad():
        for parameter in policy.reader.part.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    after = logits_after(policy, True)[-1]
    assert float((after - before).abs().max()) > 0.01
    torch.testing.assert_close(after, logits_after(policy, False)[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", [None, ["c_fc"], ["wte"]], ids=str)
def test_low_rank_additions_are_read_through_the_modules(targets):
    policy = gpt2(train=Trained(parts="lora", targets=targets))
    assert steps_of(policy.reader.part) is None
    with torch.no_grad():
        assert policy.begin(PROMPTS)[1].steps is None


def test_other_decoders_have_no_way_around():
    llama = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    policy = bound(lambda: CausalLM(config={**llama, "num_attention_heads": 2}), FACTS, seed=0)
    assert steps_of(policy.reader.part) is None


def test_dropout_autocast_and_gradients_go_through_the_modules():
    policy = gpt2()
    assert policy.begin(PROMPTS)[1].steps is None  # gradients are on
    with torch.no_grad():
        assert policy.begin(PROMPTS)[1].steps is not None
        with torch.autocast("cpu", torch.bfloat16):
            assert policy.begin(PROMPTS)[1].steps is None
        policy.train()
        assert policy.begin(PROMPTS)[1].steps is None

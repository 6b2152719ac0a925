"""The importance ratio of a fresh rollout is 1 for every policy kind, truncation and padding, dropout configured."""

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.testing.policies import example_facts, example_prompts, example_tokenizer
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.image_captioner import ImageCaptioner
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.trained import Trained
from lrl_plugins.policies.x_linear import XLinearCaptioner

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "resid_pdrop": 0.2}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "attention_dropout": 0.2,
}
BART = {
    "model_type": "bart",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "dropout": 0.2,
    "max_position_embeddings": 64,
}
VIT = {
    "model_type": "vit",
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.2,
}
POLICIES = {
    "CausalLM-left": ("text", lambda: CausalLM(config=GPT2, padding_side="left")),
    "CausalLM-right": ("text", lambda: CausalLM(config=GPT2, padding_side="right")),
    "CausalLM-rotary-left": ("text", lambda: CausalLM(config=LLAMA, padding_side="left")),
    "CausalLM-rotary-right": ("text", lambda: CausalLM(config=LLAMA, padding_side="right")),
    "Seq2SeqLM": ("text", lambda: Seq2SeqLM(config=BART)),
    "ImageCaptioner": ("pixels", lambda: ImageCaptioner(VIT, GPT2)),
    "Recurrent": ("text", lambda: Recurrent(embedding=8, hidden=16, layers=2, dropout=0.2)),
    "XLinearCaptioner": ("regions", lambda: XLinearCaptioner(hidden=16, heads=2, layers=2, dropout=0.2)),
    "CausalLM-lora": ("text", lambda: CausalLM(config=GPT2, train=Trained("lora", rank=2))),
    "CausalLM-recomputed": ("text", lambda: CausalLM(config=GPT2, gradient_checkpointing=True)),
}
DECODERS = {
    "temperature": lambda: Sample(max_length=9, samples=3, temperature=0.7),
    "top_k": lambda: Sample(max_length=9, samples=3, top_k=4),
    "top_p": lambda: Sample(max_length=9, samples=3, top_p=0.8),
    "min_p": lambda: Sample(max_length=9, samples=3, min_p=0.3),
    "min_length": lambda: Sample(max_length=9, samples=3, min_length=5),
    "greedy": lambda: Greedy(max_length=9),
    "beam": lambda: BeamSearch(width=3, max_length=9),
}


def world(kind):
    tokenizer = example_tokenizer()
    pictures = None if kind == "text" else kind
    prompts = example_prompts(tokenizer, pictures=pictures, size=16)
    return example_facts(tokenizer, prompts), prompts


@pytest.mark.parametrize("decoder_name", DECODERS)
@pytest.mark.parametrize("policy_name", POLICIES)
def test_ratio_is_one(policy_name, decoder_name):
    torch.manual_seed(0)
    kind, make = POLICIES[policy_name]
    facts, prompts = world(kind)
    policy, decoder = make(), DECODERS[decoder_name]()
    for part in (policy, decoder):
        bind_all(part, facts)
    for parameter in policy.parameters():  # far from uniform, so that truncation bites
        if parameter.dim() > 1:  # not the gains of norms: products of them would make rounding errors grow by the step
            parameter.data.mul_(3)
    policy.eval()
    rollout = decoder.decode(policy, prompts)
    assert rollout.lengths.max() > 1
    ratio = (policy(rollout).logprobs.detach() - rollout.logprobs).exp()
    assert (ratio - 1).abs().max() < 1e-4

import copy

import pytest
import torch
from torch import nn

from lrl_core.testing.policies import (
    bound,
    check_policy,
    example_facts,
    example_prompts,
    example_tokenizer,
    random_rollout,
)
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.image_captioner import ImageCaptioner
from lrl_plugins.policies.recompute import recompute_blocks
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.trained import EVERYTHING, Trained

TOKENIZER = example_tokenizer()
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.3}
OPT = {"model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OPT |= {"word_embed_proj_dim": 16, "max_position_embeddings": 32, "dropout": 0.3}  # a block that drops by its own mode
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2}
BART = {"model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "dropout": 0.3}
BART |= {"max_position_embeddings": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
BART |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.3}
T5 = {"model_type": "t5", "d_model": 16, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2, "d_kv": 8}
T5 |= {"d_ff": 32}
VIT = {"model_type": "vit", "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
VIT |= {"image_size": 8, "patch_size": 4, "hidden_size": 12, "initializer_range": 0.3}
POLICIES = {
    "gpt2": ((".mlp", 2), lambda on, train: CausalLM(config=GPT2, train=train, gradient_checkpointing=on)),
    "llama": ((".mlp", 2), lambda on, train: CausalLM(config=LLAMA, train=train, gradient_checkpointing=on)),
    "opt": ((".fc1", 2), lambda on, train: CausalLM(config=OPT, train=train, gradient_checkpointing=on)),
    "bart": ((".fc1", 3), lambda on, train: Seq2SeqLM(config=BART, train=train, gradient_checkpointing=on)),
    "t5": ((".DenseReluDense", 3), lambda on, train: Seq2SeqLM(config=T5, train=train, gradient_checkpointing=on)),
    "vit": ((".mlp", 3), lambda on, train: ImageCaptioner(VIT, GPT2, train=train, gradient_checkpointing=on)),
}
PROMPTS = example_prompts(TOKENIZER, pictures="pixels")
FACTS = example_facts(TOKENIZER, PROMPTS)
ROLLOUT = random_rollout(PROMPTS, TOKENIZER, 4)


def made(name, on, train=EVERYTHING):
    return bound(lambda: POLICIES[name][1](on, train), FACTS, seed=0)


def calls_of(policy, suffix):
    """A list that grows with every call of a layer inside the blocks."""
    seen = []
    for name, module in policy.named_modules():
        if name.endswith(suffix):
            module.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    return seen


def gradients(policy):
    torch.manual_seed(0)  # the same dropout
    policy.zero_grad()
    output = policy(ROLLOUT)
    (output.logprobs.sum() + output.entropy.sum()).backward()
    return {name: weight.grad.clone() for name, weight in policy.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", POLICIES)
def test_blocks_run_again_in_both_modes_and_give_the_same_gradient(name, training):
    suffix, blocks = POLICIES[name][0]
    plain, twice = made(name, False).train(training), made(name, True).train(training)
    once_seen, twice_seen = calls_of(plain, suffix), calls_of(twice, suffix)
    expected, got = gradients(plain), gradients(twice)
    assert (len(once_seen), len(twice_seen)) == (blocks, 2 * blocks)
    assert got.keys() == expected.keys()
    for weight, gradient in expected.items():
        torch.testing.assert_close(got[weight], gradient, atol=1e-6, rtol=1e-6)


def test_nothing_between_the_blocks_is_kept():
    def kept(policy):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            policy(ROLLOUT)
        return sum(sizes)

    assert kept(made("gpt2", True)) < 0.5 * kept(made("gpt2", False))


@pytest.mark.parametrize("name", ["opt", "bart"])
def test_it_switches_no_dropout_on(name):
    policy = made(name, True).eval()
    assert torch.equal(policy(ROLLOUT).logprobs, policy(ROLLOUT).logprobs)
    assert torch.equal(policy(ROLLOUT).logprobs, made(name, False).eval()(ROLLOUT).logprobs)


@pytest.mark.parametrize("name", POLICIES)
def test_conforms(name):
    check_policy(lambda: POLICIES[name][1](True, EVERYTHING), FACTS, PROMPTS)


def test_drawing_computes_once_also_with_gradients_on():
    policy = made("gpt2", True).eval()
    seen = calls_of(policy, ".mlp")
    logits, state = policy.begin(PROMPTS)
    policy.step(logits.argmax(1), state)[0].sum().backward()
    assert len(seen) == 4  # two blocks, two calls
    with torch.no_grad():
        policy(ROLLOUT)
    assert len(seen) == 6


def test_it_works_with_frozen_weights_below_and_with_an_adapter():
    for train in (Trained("top", top=1), Trained("lora", rank=2)):
        expected, got = gradients(made("gpt2", False, train).eval()), gradients(made("gpt2", True, train).eval())
        assert expected.keys() == got.keys()
        for weight, gradient in expected.items():
            torch.testing.assert_close(got[weight], gradient, atol=1e-6, rtol=1e-6)


def test_names_of_weights_stay_and_a_copy_is_its_own():
    policy = made("gpt2", True).eval()
    assert policy.state_dict().keys() == made("gpt2", False).state_dict().keys()
    before, twin = policy(ROLLOUT).logprobs.detach(), copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    assert torch.equal(twin(ROLLOUT).logprobs, before)


def test_a_model_that_marks_no_block_has_none_to_recompute():
    assert recompute_blocks(nn.Linear(2, 2)) == 0

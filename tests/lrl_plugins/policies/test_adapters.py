import copy

import pytest
import torch

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
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.trained import EVERYTHING, Trained

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER, pictures="regions")
FACTS = example_facts(TOKENIZER, PROMPTS)
ROLLOUT = random_rollout(PROMPTS, TOKENIZER, 4)
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.3}
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
MARIAN = {"model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "init_std": 0.3}
MARIAN |= {"max_position_embeddings": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
MARIAN |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
POLICIES = {
    "gpt2": lambda trained: CausalLM(config=GPT2, train=trained),
    "llama": lambda trained: CausalLM(config=LLAMA, train=trained),
    "marian": lambda trained: Seq2SeqLM(config=MARIAN, train=trained),
    "captioner": lambda trained: ImageCaptioner(None, GPT2, train=trained),
}
LORA = Trained("lora", rank=2)


def made(name, trained=LORA):
    return bound(lambda: POLICIES[name](trained), FACTS, seed=0).eval()


def taught(policy):
    optimizer = torch.optim.SGD([weight for weight in policy.parameters() if weight.requires_grad], lr=0.02)
    for _ in range(2):  # the first step moves one factor only: the other one is 0
        optimizer.zero_grad()
        policy(ROLLOUT).logprobs.sum().backward()
        optimizer.step()
    return policy


@pytest.mark.parametrize("name", POLICIES)
def test_it_is_the_trunk_at_first_differs_after_a_step_and_is_the_trunk_again_while_off(name):
    trunk = made(name, EVERYTHING)(ROLLOUT).logprobs.detach()
    policy = made(name)
    assert torch.equal(policy(ROLLOUT).logprobs, trunk)
    taught(policy)
    assert (policy(ROLLOUT).logprobs - trunk).abs().max() > 1e-3
    with policy.adapter_off():
        assert torch.equal(policy(ROLLOUT).logprobs, trunk)
    assert (policy(ROLLOUT).logprobs - trunk).abs().max() > 1e-3


@pytest.mark.parametrize("name", POLICIES)
def test_only_the_additions_learn_and_the_rest_does_not_move(name):
    policy = made(name)
    learning = {weight for weight, parameter in policy.named_parameters() if parameter.requires_grad}
    assert learning
    assert all(".lora_" in weight for weight in learning)
    before = {weight: parameter.detach().clone() for weight, parameter in policy.named_parameters()}
    taught(policy)
    moved = {weight for weight, parameter in policy.named_parameters() if not torch.equal(parameter, before[weight])}
    assert moved
    assert moved <= learning


@pytest.mark.parametrize("name", POLICIES)
def test_conforms(name):
    check_policy(lambda: POLICIES[name](LORA), FACTS, PROMPTS)


def test_what_it_adds_is_alpha_over_rank_times_the_two_factors():
    policy = taught(made("llama", Trained("lora", rank=2, alpha=6.0, targets=["q_proj"])))
    layer = policy.reader.model.model.layers[0].self_attn.q_proj
    seen = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    addition = 3.0 * seen @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
    torch.testing.assert_close(layer(seen), layer.base_layer(seen) + addition, atol=1e-5, rtol=1e-5)
    assert addition.abs().max() > 1e-3
    assert layer.lora_A["default"].weight.shape == (2, 16)
    assert {name for name, _ in policy.named_parameters() if ".lora_" in name and "q_proj" not in name} == set()


def test_switching_it_off_keeps_gradients_as_they_were():
    policy = taught(made("gpt2"))
    twin = copy.deepcopy(policy).requires_grad_(False)
    for reader, learns in ((policy, True), (twin, False)):
        with pytest.raises(RuntimeError, match="in between"), reader.adapter_off():
            raise RuntimeError("in between")
        additions = [weight for name, weight in reader.named_parameters() if ".lora_" in name]
        assert all(weight.requires_grad == learns for weight in additions)
        assert (reader(ROLLOUT).logprobs - made("gpt2", EVERYTHING)(ROLLOUT).logprobs).abs().max() > 1e-3


def test_a_policy_without_adapter_has_none_to_switch_off():
    assert made("gpt2", EVERYTHING).adapter_off() is None
    assert bound(lambda: Recurrent(embedding=4, hidden=4), FACTS, seed=0).adapter_off() is None


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_trained_whole_is_the_trunk_of_one_with_an_adapter(name):
    whole = taught(made(name, EVERYTHING))
    policy = bound(lambda: POLICIES[name](LORA), FACTS, seed=1).eval()
    policy.load_state_dict(whole.state_dict())
    assert torch.equal(policy(ROLLOUT).logprobs, whole(ROLLOUT).logprobs)
    twin = copy.deepcopy(taught(policy))
    with torch.no_grad():
        twin.load_state_dict(whole.state_dict())  # the trunk; the additions stay
    assert torch.equal(twin(ROLLOUT).logprobs, policy(ROLLOUT).logprobs)
    other = made(name)
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other(ROLLOUT).logprobs, policy(ROLLOUT).logprobs)


def test_weights_that_are_missing_for_another_reason_are_still_missed():
    policy = made("gpt2")
    state = policy.state_dict()
    del state["reader.model.transformer.ln_f.weight"]
    with pytest.raises(RuntimeError, match="Missing key"):
        policy.load_state_dict(state)


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_refusals_name_the_cause():
    with pytest.raises(ValueError, match=r"peft refuses.*Some names: .*c_attn"):
        made("gpt2", Trained("lora", targets=["q_proj"]))
    with pytest.raises(ValueError, match="names the output matrix"):
        made("gpt2", Trained("lora", targets=["c_attn", "lm_head"]))

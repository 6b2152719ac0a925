"""A policy with an adapter takes over what a run without one has saved, wherever a recipe names a checkpoint."""

import copy

import pytest
import torch

from lrl_core.reference import Reference, load_policy
from lrl_core.testing.policies import bound, example_facts, example_prompts, example_tokenizer, random_rollout
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.trained import EVERYTHING, Trained

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER)
FACTS = example_facts(TOKENIZER, PROMPTS)
ROLLOUT = random_rollout(PROMPTS, TOKENIZER, 4)
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.3}
MARIAN = {"model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "init_std": 0.3}
MARIAN |= {"max_position_embeddings": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
MARIAN |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
POLICIES = {
    "gpt2": lambda trained, **options: CausalLM(config=GPT2, train=trained, **options),
    "marian": lambda trained, **options: Seq2SeqLM(config=MARIAN, train=trained, **options),
}
LORA = Trained("lora", rank=2)
every_kind = pytest.mark.parametrize("name", POLICIES)


def made(name, trained, seed, **options):
    return bound(lambda: POLICIES[name](trained, **options), FACTS, seed=seed).eval()


@pytest.fixture
def plain(name):
    return made(name, EVERYTHING, seed=3)


@pytest.fixture
def checkpoint(plain, tmp_path):
    """What a run that trained every weight leaves: no additions, and no layer under one."""
    weights = {f"policy.{key}": value for key, value in plain.state_dict().items()}
    assert not [key for key in weights if "lora_" in key or "base_layer" in key]
    torch.save({"state_dict": weights}, tmp_path / "run.ckpt")
    return str(tmp_path / "run.ckpt")


def moved(policy):
    with torch.no_grad():
        for weight_name, weight in policy.named_parameters():
            if ".lora_B" in weight_name:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    return policy


@every_kind
def test_it_starts_from_a_plain_checkpoint_and_the_adapter_adds_nothing(name, plain, checkpoint):
    policy = made(name, LORA, seed=0)
    assert not torch.allclose(policy(ROLLOUT).logprobs, plain(ROLLOUT).logprobs, atol=1e-2)
    load_policy(policy, checkpoint, "start_from")
    assert torch.equal(policy(ROLLOUT).logprobs, plain(ROLLOUT).logprobs)
    learning = [key for key, weight in policy.named_parameters() if weight.requires_grad]
    assert learning
    assert all(".lora_" in key for key in learning)


@every_kind
def test_with_the_adapter_off_it_stays_the_plain_policy(name, plain, checkpoint):
    policy = made(name, LORA, seed=0)
    load_policy(policy, checkpoint, "start_from")
    moved(policy)
    expected = plain(ROLLOUT).logprobs.detach()
    assert not torch.allclose(policy(ROLLOUT).logprobs, expected, atol=1e-2)
    reference = Reference()
    reference.hold(policy)
    assert reference.copy is None
    assert torch.equal(reference.logprobs(policy, ROLLOUT), expected)


@every_kind
def test_a_reference_of_another_run_may_be_plain(name, plain, checkpoint):
    policy = made(name, LORA, seed=0)
    reference = Reference(path=checkpoint)
    reference.hold(policy)
    expected = plain(ROLLOUT).logprobs.detach()
    assert torch.equal(reference.logprobs(moved(policy), ROLLOUT), expected)


@every_kind
def test_a_value_head_starts_as_it_is_drawn(name, plain, checkpoint):
    policy = made(name, LORA, seed=0, value_head="shared")
    before = copy.deepcopy(policy.values.state_dict())
    load_policy(policy, checkpoint, "start_from")
    assert torch.equal(policy(ROLLOUT).logprobs, plain(ROLLOUT).logprobs)
    assert all(torch.equal(policy.values.state_dict()[key], value) for key, value in before.items())


@every_kind
def test_a_checkpoint_with_an_adapter_keeps_it(name, tmp_path):
    adapted = moved(made(name, LORA, seed=3))
    torch.save({"state_dict": {f"policy.{k}": v for k, v in adapted.state_dict().items()}}, tmp_path / "run.ckpt")
    policy = made(name, LORA, seed=0)
    load_policy(policy, str(tmp_path / "run.ckpt"), "start_from")
    assert torch.equal(policy(ROLLOUT).logprobs, adapted(ROLLOUT).logprobs)

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lrl_core.testing.policies import (
    bound,
    check_policy,
    example_facts,
    example_prompts,
    example_tokenizer,
    random_rollout,
)
from lrl_plugins.policies.causal_lm import CausalLM

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER)
FACTS = example_facts(TOKENIZER, PROMPTS)
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.3}
DECODER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
DECODER |= {"num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA = {"model_type": "llama", "attention_dropout": 0.2, **DECODER}
MISTRAL = {"model_type": "mistral", "sliding_window": 3, **DECODER}
OPT = {"model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OPT |= {"word_embed_proj_dim": 16, "max_position_embeddings": 32, "init_std": 0.3}
BLOOM = {"model_type": "bloom", "hidden_size": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("config", [GPT2, LLAMA, OPT, BLOOM], ids=lambda config: config["model_type"])
def test_conforms(config, side):
    check_policy(lambda: CausalLM(config=config, padding_side=side), FACTS, PROMPTS)


def test_conforms_with_a_sliding_window_padded_on_the_left():
    check_policy(lambda: CausalLM(config=MISTRAL), FACTS, PROMPTS)


@pytest.mark.parametrize("lengths", [(0, 0, 0, 0, 0), (0, 2, 1, 2, 0)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_conforms_with_empty_prompts(lengths, side):
    prompts = example_prompts(TOKENIZER, lengths)
    check_policy(lambda: CausalLM(config=GPT2, padding_side=side), example_facts(TOKENIZER, prompts), prompts)


def test_conforms_without_begin_token():
    check_policy(lambda: CausalLM(config=GPT2, begin_with_bos=False), FACTS, PROMPTS)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=lambda config: config["model_type"])
def test_log_probabilities_are_those_of_transformers(config, side):
    policy = bound(lambda: CausalLM(config=config, padding_side=side), FACTS, seed=0).eval()
    rollout = random_rollout(PROMPTS, TOKENIZER, 4)
    ours = policy(rollout).logprobs
    for row in range(len(PROMPTS)):
        prompt = PROMPTS.tokens[row, : PROMPTS.lengths[row]]
        episode = rollout.tokens[row, : rollout.lengths[row]]
        line = torch.cat([torch.tensor([TOKENIZER.bos]), prompt, episode])
        theirs = policy.reader.model(input_ids=line[None]).logits[0].log_softmax(1)
        expected = [theirs[len(prompt) + t, token] for t, token in enumerate(episode)]
        torch.testing.assert_close(ours[row, : len(episode)], torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.fixture
def folder(tmp_path):
    config = AutoConfig.for_model(**GPT2, vocab_size=30, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    return str(tmp_path)


def test_pretrained_weights_are_loaded_and_config_overrides_the_stored_one(folder):
    policy = bound(lambda: CausalLM(path=folder, config={"attn_pdrop": 0.5}), FACTS, seed=0)
    stored = AutoModelForCausalLM.from_pretrained(folder)
    assert policy.reader.model.config.attn_pdrop == 0.5
    assert torch.equal(policy.reader.model.transformer.h[1].mlp.c_fc.weight, stored.transformer.h[1].mlp.c_fc.weight)


def test_a_matrix_larger_than_the_tokenizer_gives_no_more_logits_than_tokens(folder):
    check_policy(lambda: CausalLM(path=folder), FACTS, PROMPTS)  # 30 rows for 23 ids
    policy = bound(lambda: CausalLM(path=folder), FACTS, seed=0)
    assert policy.begin(PROMPTS)[0].shape == (5, 23)


def test_a_matrix_smaller_than_the_tokenizer_grows_and_keeps_its_rows(folder):
    tokenizer = example_tokenizer(40)
    policy = bound(lambda: CausalLM(path=folder), example_facts(tokenizer, PROMPTS), seed=0)
    stored = AutoModelForCausalLM.from_pretrained(folder)
    assert policy.begin(PROMPTS)[0].shape == (5, 44)
    assert torch.equal(policy.reader.head.weight[:30], stored.lm_head.weight)


def test_dropout_follows_the_mode_that_the_caller_set(folder):
    rollout = random_rollout(PROMPTS, TOKENIZER, 4)
    for source in ({"path": folder}, {"config": {**GPT2, "resid_pdrop": 0.3}}):
        policy = bound(lambda source=source: CausalLM(**source), FACTS, seed=0)
        assert policy.reader.model.training  # as fresh modules are, although from_pretrained gives eval mode
        assert not torch.equal(policy(rollout).logprobs, policy(rollout).logprobs)
        policy.eval()
        assert torch.equal(policy(rollout).logprobs, policy(rollout).logprobs)


def test_a_deep_copy_shares_nothing():
    policy = bound(lambda: CausalLM(config=GPT2), FACTS, seed=0).eval()
    rollout = random_rollout(PROMPTS, TOKENIZER, 4)
    before = policy(rollout).logprobs.detach()
    twin = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    assert torch.equal(twin(rollout).logprobs, before)
    assert not torch.allclose(policy(rollout).logprobs, before)


def test_refusals_name_the_cause():
    with pytest.raises(ValueError, match="model_type"):
        CausalLM()
    with pytest.raises(ValueError, match="padding_side: left"):
        bound(lambda: CausalLM(config=MISTRAL, padding_side="right"), FACTS, seed=0)
    gemma = {"model_type": "gemma2", "head_dim": 4, "final_logit_softcapping": 30.0, **DECODER}
    with pytest.raises(ValueError, match="Gemma2ForCausalLM"):
        bound(lambda: CausalLM(config=gemma), FACTS, seed=0)
    empty = example_prompts(TOKENIZER, (0, 1, 2, 1, 3))
    with pytest.raises(ValueError, match="begin_with_bos: true"):
        bound(lambda: CausalLM(config=GPT2, begin_with_bos=False), FACTS, seed=0).begin(empty)
    short = {**GPT2, "n_positions": 6}
    with pytest.raises(ValueError, match="room for 6"):
        bound(lambda: CausalLM(config=short), FACTS, seed=0)(random_rollout(PROMPTS, TOKENIZER, 5))

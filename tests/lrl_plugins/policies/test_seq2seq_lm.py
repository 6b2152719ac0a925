from dataclasses import replace

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
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER)
FACTS = example_facts(TOKENIZER, PROMPTS)
LAYERS = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "max_position_embeddings": 64, "init_std": 0.3}
LAYERS |= {
    f"{part}_{size}": n for part in ("encoder", "decoder") for size, n in (("attention_heads", 2), ("ffn_dim", 32))
}
MARIAN = {"model_type": "marian", "dropout": 0.3, **LAYERS}
BART = {"model_type": "bart", **LAYERS}
T5 = {
    "model_type": "t5",
    "d_model": 16,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "d_kv": 8,
    "d_ff": 32,
}
T5 |= {"initializer_factor": 3.0}
UNSCALED_T5 = {**T5, "initializer_factor": 1.0, "tie_word_embeddings": False}


@pytest.mark.parametrize("config", [MARIAN, BART, T5, UNSCALED_T5], ids=["marian", "bart", "t5", "t5-unscaled"])
def test_conforms(config):
    check_policy(lambda: Seq2SeqLM(config=config), FACTS, PROMPTS)


def test_conforms_with_empty_prompts():
    prompts = example_prompts(TOKENIZER, (0, 2, 1, 2, 0))
    check_policy(lambda: Seq2SeqLM(config=MARIAN), example_facts(TOKENIZER, prompts), prompts)


@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("config", [MARIAN, BART, T5], ids=lambda config: config["model_type"])
def test_log_probabilities_are_those_of_transformers(config, begin):
    policy = bound(lambda: Seq2SeqLM(config=config, begin_with_bos=begin), FACTS, seed=0).eval()
    model = policy.reader.model
    if config is not T5:
        torch.nn.init.normal_(model.final_logits_bias)  # pretrained Marian models have one
    rollout = random_rollout(PROMPTS, TOKENIZER, 4)
    ours = policy(rollout).logprobs
    for row in range(len(PROMPTS)):
        prompt = PROMPTS.tokens[row, : PROMPTS.lengths[row]].tolist()
        episode = rollout.tokens[row, : rollout.lengths[row]]
        source = [TOKENIZER.bos] * begin + prompt + [TOKENIZER.eos]
        read = torch.cat([torch.tensor([TOKENIZER.bos]), episode[:-1]])
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=read[None]).logits[0]
        expected = logits.log_softmax(1).gather(1, episode[:, None]).squeeze(1)
        torch.testing.assert_close(ours[row, : len(episode)], expected, atol=1e-5, rtol=1e-5)


def test_the_encoder_reads_each_distinct_prompt_once_and_gradients_add_up():
    rollout = random_rollout(PROMPTS, TOKENIZER, 4)
    apart = replace(rollout, prompts=replace(PROMPTS, group=torch.arange(5)))
    policy = bound(lambda: Seq2SeqLM(config=MARIAN), FACTS, seed=0).eval()
    rows, gradients = [], []
    encoder = policy.reader.model.get_encoder()
    encoder.register_forward_hook(lambda module, inputs, output: rows.append(len(output[0])))
    for episodes in (rollout, apart):
        policy.zero_grad()
        policy(episodes).logprobs.sum().backward()
        gradients.append(encoder.layers[0].fc1.weight.grad.clone())
    assert rows == [4, 5]  # rows 1 and 3 are the same prompt
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_a_start_token_in_the_config_is_used():
    started = bound(lambda: Seq2SeqLM(config={**MARIAN, "decoder_start_token_id": 0}), FACTS, seed=0)
    assert started.start == 0
    assert bound(lambda: Seq2SeqLM(config=MARIAN), FACTS, seed=0).start == TOKENIZER.bos


def test_an_empty_source_is_refused():
    policy = bound(lambda: Seq2SeqLM(config=MARIAN, end_with_eos=False), FACTS, seed=0)
    with pytest.raises(ValueError, match="end_with_eos: true"):
        policy.begin(example_prompts(TOKENIZER, (0, 2, 1, 2, 0)))

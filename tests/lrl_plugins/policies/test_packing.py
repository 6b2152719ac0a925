"""One line of real tokens says the same as padded rows, in values and in gradients."""

import pytest
import torch

from lrl_core.testing.policies import bound, example_facts, example_prompts, example_tokenizer, random_rollout
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.layout import Prefix
from lrl_plugins.policies.packing import Lengths, pack

TOKENIZER = example_tokenizer()
DECODER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
DECODER |= {"num_attention_heads": 4, "num_key_value_heads": 2}
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.3}
LLAMA = {"model_type": "llama", **DECODER}
MISTRAL = {"model_type": "mistral", "sliding_window": 3, **DECODER}
BLOOM = {"model_type": "bloom", "hidden_size": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}


def policy_and_rollout(config, lengths, groups):
    prompts = example_prompts(TOKENIZER, lengths, list(range(len(lengths))))
    prompts = prompts.select(torch.tensor(groups))
    policy = bound(lambda: CausalLM(config=config), example_facts(TOKENIZER, prompts), seed=0).eval()
    return policy, random_rollout(prompts, TOKENIZER, 5)


def answer(policy, rollout, packs):
    policy.reader.packs = packs
    policy.zero_grad()
    said = policy(rollout)
    (said.logprobs * torch.linspace(-1, 1, said.logprobs.numel()).view(said.logprobs.shape)).sum().backward()
    return said.logprobs.detach(), {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lengths", [(2, 2, 2), (0, 3, 1)], ids=["equal", "unequal"])
@pytest.mark.parametrize("groups", [[0, 1, 2], [0, 0, 1, 1, 1, 2], [2, 0, 2, 1]], ids=str)
@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=lambda config: config["model_type"])
def test_a_packed_line_gives_the_values_and_gradients_of_padded_rows(config, groups, lengths):
    policy, rollout = policy_and_rollout(config, lengths, groups)
    assert policy.reader.packs
    padded, padded_gradients = answer(policy, rollout, packs=False)
    packed, packed_gradients = answer(policy, rollout, packs=True)
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-5)
    assert packed_gradients.keys() == padded_gradients.keys()
    for name, gradient in packed_gradients.items():
        torch.testing.assert_close(gradient, padded_gradients[name], atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("config", [MISTRAL, BLOOM], ids=lambda config: config["model_type"])
def test_models_whose_attention_knows_more_than_positions_are_read_padded(config):
    policy, rollout = policy_and_rollout(config, (0, 3, 1), [0, 0, 1, 2])
    assert not policy.reader.packs
    assert policy.reader.part.config._attn_implementation != "lrl_packed"
    assert policy(rollout).logprobs.isfinite().all()


def test_only_real_tokens_are_read_and_each_prompt_once():
    prefix = Prefix(torch.tensor([[1, 5, 6], [1, 7, 0]]), torch.tensor([3, 2]))
    episodes = torch.tensor([[11, 12, 2], [13, 2, 0], [14, 15, 16]])
    line = pack(prefix, torch.tensor([0, 1, 1]), episodes, torch.tensor([3, 2, 3]))
    assert line.tokens.tolist() == [[1, 5, 6, 1, 7, 11, 12, 13, 14, 15]]
    assert line.positions.tolist() == [[0, 1, 2, 0, 1, 3, 4, 2, 2, 3]]
    states = torch.arange(10.0)[None, :, None]
    before = line.align(states, 3)[:, :, 0]
    assert before[0].tolist() == [2, 5, 6]
    assert before[1, :2].tolist() == [4, 7]
    assert before[2].tolist() == [4, 8, 9]


def test_episodes_of_one_token_need_nothing_but_their_prompt():
    policy, rollout = policy_and_rollout(GPT2, (2, 1), [0, 0, 1])
    ones = torch.ones_like(rollout.lengths)
    mask = torch.arange(rollout.tokens.shape[1]) < ones[:, None]
    short = type(rollout)(rollout.prompts, rollout.tokens, ones, mask, rollout.logprobs, rollout.terminated).trimmed()
    padded, _ = answer(policy, short, packs=False)
    packed, _ = answer(policy, short, packs=True)
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-5)


def test_there_and_back():
    lengths = Lengths(torch.tensor([2, 0, 3]))
    packed = torch.randn(5, 2, 4)
    rectangle = lengths.rectangle(packed)
    assert rectangle.shape == (3, 2, 3, 4)
    assert float(rectangle[1].abs().sum()) == 0
    assert torch.equal(lengths.line(rectangle), packed)


def test_a_model_that_refuses_the_packed_line_is_read_padded(monkeypatch):
    def refuses(*arguments, **others):
        raise TypeError("no such argument")

    monkeypatch.setattr("lrl_plugins.policies.reader.Reader.read_packed", refuses)
    prompts = example_prompts(TOKENIZER, (2, 1), [0, 1])
    policy = bound(lambda: CausalLM(config=GPT2), example_facts(TOKENIZER, prompts), seed=0).eval()
    assert not policy.reader.packs
    assert policy(random_rollout(prompts, TOKENIZER, 4)).logprobs.isfinite().all()

from dataclasses import replace

import pytest
import torch

from lrl_core.testing.policies import bound, example_facts, example_prompts, example_tokenizer, random_rollout
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.image_captioner import ImageCaptioner
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.values import Values
from lrl_plugins.policies.x_linear import XLinearCaptioner

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER, pictures="regions")
FACTS = example_facts(TOKENIZER, PROMPTS)
GPT2 = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 32}
T5 = {"model_type": "t5", "d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 32}
POLICIES = {
    "CausalLM": lambda kind: CausalLM(config=GPT2, value_head=kind),
    "Seq2SeqLM": lambda kind: Seq2SeqLM(config=T5, value_head=kind),
    "ImageCaptioner": lambda kind: ImageCaptioner(None, GPT2, value_head=kind),
    "Recurrent": lambda kind: Recurrent(embedding=8, hidden=12, value_head=kind),
    "XLinearCaptioner": lambda kind: XLinearCaptioner(hidden=16, heads=2, layers=1, value_head=kind),
}


@pytest.fixture
def rollout():
    return random_rollout(PROMPTS, TOKENIZER, 4)


def made(name, kind):
    return bound(lambda: POLICIES[name](kind), FACTS, seed=0).eval()


@pytest.mark.parametrize("name", POLICIES)
def test_values_are_0_at_first_then_read_from_the_state_before_each_chosen_token(name, rollout):
    assert made(name, "none")(rollout).values is None
    policy = made(name, "shared")
    assert not policy(rollout).values.any()
    torch.nn.init.normal_(policy.values.linear.weight)
    torch.nn.init.constant_(policy.values.linear.bias, 1.0)
    output = policy(rollout)
    assert not output.values[~rollout.action_mask].any()
    assert output.values[rollout.action_mask].all()
    changed = rollout.tokens.clone()
    changed[:, 2:] = torch.where(rollout.action_mask[:, 2:], 5, 0)
    after = policy(replace(rollout, tokens=changed)).values
    torch.testing.assert_close(after[:, :3], output.values[:, :3])  # token 2 is not known before it is chosen


@pytest.mark.parametrize(("kind", "reached"), [("shared", True), ("detached", False)])
@pytest.mark.parametrize("name", POLICIES)
def test_the_gradient_reaches_the_other_weights_where_they_are_shared(name, kind, reached, rollout):
    policy = made(name, kind)
    torch.nn.init.normal_(policy.values.linear.weight)
    policy(rollout).values.square().sum().backward()
    assert policy.values.linear.weight.grad.any()
    others = [weight.grad for other, weight in policy.named_parameters() if not other.startswith("values.")]
    assert any(gradient is not None and bool(gradient.any()) for gradient in others) == reached


def test_values_by_hand(rollout):
    head = Values(2, detached=False)
    head.load_state_dict({"linear.weight": torch.tensor([[2.0, -1.0]]), "linear.bias": torch.tensor([0.5])})
    got = head(rollout, torch.tensor([3.0, 4.0]).expand(5, 4, 2))
    torch.testing.assert_close(got, torch.where(rollout.action_mask, 2.5, 0.0))


def test_values_keep_their_precision_under_autocast(rollout):
    head = Values(2, detached=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(rollout, torch.ones(5, 4, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_policy_saved_without_value_head_can_be_loaded(rollout):
    plain, valued = made("CausalLM", "none"), bound(lambda: POLICIES["CausalLM"]("shared"), FACTS, seed=1).eval()
    valued.load_state_dict(plain.state_dict())
    assert torch.equal(valued(rollout).logprobs, plain(rollout).logprobs)


def test_another_word_is_refused(shapes_unchecked):
    with pytest.raises(ValueError, match="'none', 'detached' or 'shared'"):
        made("Recurrent", "joint")

import time
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
from lrl_core.types import Prompts, Rollout
from lrl_plugins.policies.trained import Trained
from lrl_plugins.policies.x_linear import XLinearCaptioner

TOKENIZER = example_tokenizer()
VIT = {"model_type": "vit", "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
VIT |= {"image_size": 8, "patch_size": 4, "hidden_size": 12, "initializer_range": 0.3}
EMPTY, ASKED = (0, 0, 0, 0, 0), (3, 1, 5, 1, 4)


def pictured(kind="regions", lengths=EMPTY):
    prompts = example_prompts(TOKENIZER, lengths, pictures=kind)
    return example_facts(TOKENIZER, prompts), prompts


def small(**arguments):
    return XLinearCaptioner(hidden=16, heads=2, layers=2, **arguments)


@pytest.mark.parametrize("lengths", [EMPTY, ASKED], ids=["picture", "picture-and-question"])
@pytest.mark.parametrize("encoder", [VIT, None], ids=["pixels", "regions"])
def test_conforms(encoder, lengths):
    facts, prompts = pictured("pixels" if encoder else "regions", lengths)
    check_policy(lambda: small(encoder=encoder), facts, prompts)


def test_conforms_with_regions_of_equal_number():
    _, prompts = pictured()
    prompts = replace(prompts, features={"regions": prompts.features["regions"]})
    check_policy(small, example_facts(TOKENIZER, prompts), prompts)


def test_the_default_is_built_at_once():
    facts, prompts = pictured()
    start = time.perf_counter()
    policy = bound(XLinearCaptioner, facts, seed=0)
    assert time.perf_counter() - start < 5
    assert policy.begin(prompts)[0].shape == (5, len(TOKENIZER))


def test_padded_regions_change_nothing_the_order_does_not_and_the_picture_does():
    facts, prompts = pictured()
    rollout = random_rollout(prompts, TOKENIZER, 4)
    policy = bound(small, facts, seed=0).eval()

    def read(regions):
        features = {**prompts.features, "regions": regions}
        return policy(replace(rollout, prompts=replace(prompts, features=features))).logprobs

    given = prompts.features["regions"]
    plain = read(given)
    padding = torch.arange(4) >= prompts.features["region_lengths"][:, None]
    torch.testing.assert_close(read(given.masked_fill(padding[:, :, None], float("nan"))), plain)
    full = (prompts.features["region_lengths"] == 4).nonzero().squeeze(1)
    torch.testing.assert_close(read(given.flip(1))[full], plain[full], atol=1e-5, rtol=1e-5)
    assert (read(given + 1) - plain).abs().max() > 0.01


def test_each_distinct_picture_is_encoded_once():
    facts, prompts = pictured()
    policy = bound(small, facts, seed=0).eval()
    rows = []
    policy.encoder.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    policy(random_rollout(prompts, TOKENIZER, 4))
    assert rows == [4]  # rows 1 and 3 are the same picture


def test_dropout_follows_the_mode():
    facts, prompts = pictured()
    rollout = random_rollout(prompts, TOKENIZER, 4)
    policy = bound(small, facts, seed=0)
    assert not torch.equal(policy(rollout).logprobs, policy(rollout).logprobs)
    policy.eval()
    assert torch.equal(policy(rollout).logprobs, policy(rollout).logprobs)


def test_a_frozen_vision_encoder_gets_no_gradient():
    facts, prompts = pictured("pixels")
    policy = bound(lambda: small(encoder=VIT, freeze_encoder=True), facts, seed=0)
    policy(random_rollout(prompts, TOKENIZER, 4)).logprobs.sum().backward()
    assert all(parameter.grad is None for parameter in policy.vision.parameters())
    assert policy.bridge[0].weight.grad.any()


def test_it_learns_to_name_two_regions_from_their_pairing():
    """The caption says whether two regions agree: a product of the two, which no single region tells."""
    first, second = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).unbind(1)
    regions = torch.stack([torch.stack([first, second], 1), torch.zeros(4, 2)], 2)
    agree, differ = 4, 5
    answers = torch.where(first == second, agree, differ)
    targets = torch.stack([answers, torch.full((4,), TOKENIZER.eos)], 1)
    prompts = Prompts(
        torch.zeros(4, 0, dtype=torch.long),
        torch.zeros(4, dtype=torch.long),
        torch.arange(4),
        targets=targets,
        target_lengths=torch.full((4,), 2),
        features={"regions": regions},
    )
    policy = bound(lambda: small(dropout=0.0), example_facts(TOKENIZER, prompts), seed=0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
    human = Rollout.of_targets(prompts)
    for _ in range(60):
        optimizer.zero_grad()
        (-policy(human).logprobs.sum() / 8).backward()
        optimizer.step()
    logits, state = policy.begin(prompts)
    assert logits.argmax(1).tolist() == answers.tolist()
    assert policy.step(answers, state)[0].argmax(1).tolist() == [TOKENIZER.eos] * 4


def test_refusals_name_the_cause():
    with pytest.raises(ValueError, match=r"hidden=20 and heads=8.*hidden: 16"):
        XLinearCaptioner(hidden=20)
    with pytest.raises(ValueError, match="peft for transformers models"):
        XLinearCaptioner(train=Trained("lora"))
    facts, _ = pictured("pixels")
    with pytest.raises(ValueError, match="Name an encoder"):
        bound(small, facts, seed=0)

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
from lrl_plugins.policies.image_captioner import ImageCaptioner

TOKENIZER = example_tokenizer()
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.3}
BART = {"model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "decoder_attention_heads": 2}
BART |= {"encoder_attention_heads": 2, "decoder_ffn_dim": 32, "init_std": 0.3, "decoder_start_token_id": 1}
VIT = {"model_type": "vit", "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
VIT |= {"image_size": 8, "patch_size": 4, "initializer_range": 0.3}
NARROW, WIDE = {**VIT, "hidden_size": 12}, {**VIT, "hidden_size": 16, "hidden_dropout_prob": 0.2}
RESNET = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}
EMPTY, ASKED = (0, 0, 0, 0, 0), (3, 1, 5, 1, 4)


def pictured(kind, lengths=EMPTY):
    prompts = example_prompts(TOKENIZER, lengths, pictures=kind)
    return example_facts(TOKENIZER, prompts), prompts


@pytest.mark.parametrize("lengths", [EMPTY, ASKED], ids=["picture", "picture-and-question"])
@pytest.mark.parametrize("encoder", [NARROW, WIDE, None], ids=["projected", "same-width", "regions"])
def test_conforms(encoder, lengths):
    facts, prompts = pictured("pixels" if encoder else "regions", lengths)
    check_policy(lambda: ImageCaptioner(encoder, GPT2), facts, prompts)


def test_conforms_with_right_padding_other_decoders_and_convolutional_encoders():
    facts, prompts = pictured("regions", ASKED)
    check_policy(lambda: ImageCaptioner(None, GPT2, padding_side="right"), facts, prompts)
    facts, prompts = pictured("regions")
    check_policy(lambda: ImageCaptioner(None, BART), facts, prompts)
    example = replace(prompts, features={"pixels": torch.randn(5, 3, 32, 32)}, group=torch.arange(5))
    check_policy(lambda: ImageCaptioner(RESNET, GPT2), example_facts(TOKENIZER, example), example)


def test_the_picture_is_seen_padded_regions_are_not_and_their_order_is_not():
    facts, prompts = pictured("regions")
    rollout = random_rollout(prompts, TOKENIZER, 4)
    policy = bound(lambda: ImageCaptioner(None, GPT2), facts, seed=0).eval()

    def read(change):
        features = {**prompts.features, "regions": change(prompts.features["regions"].clone())}
        return policy(replace(rollout, prompts=replace(prompts, features=features))).logprobs

    plain = read(lambda regions: regions)
    real = torch.arange(4) < prompts.features["region_lengths"][:, None]
    torch.testing.assert_close(read(lambda regions: regions.masked_fill(~real[:, :, None], 9.0)), plain)
    full = (prompts.features["region_lengths"] == 4).nonzero().squeeze(1)
    turned = read(lambda regions: regions.flip(1))
    torch.testing.assert_close(turned[full], plain[full], atol=1e-5, rtol=1e-5)
    assert (read(lambda regions: regions + torch.randn(regions.shape)) - plain).abs().max() > 0.01


def test_the_encoder_reads_each_distinct_picture_once_and_gradients_add_up():
    facts, prompts = pictured("pixels")
    rollout = random_rollout(prompts, TOKENIZER, 4)
    policy = bound(lambda: ImageCaptioner(NARROW, GPT2), facts, seed=0).eval()
    rows, gradients = [], []
    policy.encoder.register_forward_hook(lambda module, inputs, output: rows.append(len(output[0])))
    for group in (prompts.group, torch.arange(5)):
        policy.zero_grad()
        policy(replace(rollout, prompts=replace(prompts, group=group))).logprobs.sum().backward()
        gradients.append(policy.encoder.embeddings.cls_token.grad.clone())
    assert rows == [4, 5]  # rows 1 and 3 are the same picture
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_a_frozen_encoder_gets_no_gradient_and_the_rest_does():
    facts, prompts = pictured("pixels")
    check_policy(lambda: ImageCaptioner(NARROW, GPT2, freeze_encoder=True), facts, prompts)
    policy = bound(lambda: ImageCaptioner(NARROW, GPT2, freeze_encoder=True), facts, seed=0)
    policy(random_rollout(prompts, TOKENIZER, 4)).logprobs.sum().backward()
    assert all(parameter.grad is None for parameter in policy.encoder.parameters())
    assert policy.bridge.weight.grad.any()


def test_refusals_name_the_cause():
    facts, _ = pictured("regions")
    with pytest.raises(ValueError, match=r"expected 'pixels'.*encoder: null"):
        bound(lambda: ImageCaptioner(NARROW, GPT2), facts, seed=0)
    llama = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    with pytest.raises(ValueError, match="LlamaForCausalLM cannot attend"):
        bound(lambda: ImageCaptioner(None, {**llama, "num_attention_heads": 2}), facts, seed=0)
    facts, prompts = pictured("regions", ASKED)
    with pytest.raises(ValueError, match="equal lengths"):  # BART's decoder takes no positions
        bound(lambda: ImageCaptioner(None, BART), facts, seed=0).begin(prompts)
    with pytest.raises(ValueError, match="decoder"):
        ImageCaptioner(None, {"n_layer": 2})

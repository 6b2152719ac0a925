import copy

import pytest
import torch
from jsonargparse import ArgumentParser

from lrl_core.interfaces import Policy
from lrl_core.testing.policies import (
    bound,
    check_policy,
    example_facts,
    example_prompts,
    example_tokenizer,
    random_rollout,
)
from lrl_core.vocab import Head, score_vocabulary
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.image_captioner import ImageCaptioner
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.trained import EVERYTHING, Trained
from lrl_plugins.policies.x_linear import XLinearCaptioner

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER, pictures="regions")
FACTS = example_facts(TOKENIZER, PROMPTS)
GPT2 = {"model_type": "gpt2", "n_layer": 3, "n_head": 2, "n_embd": 16, "n_positions": 32, "tie_word_embeddings": False}
OPT = {"model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
OPT |= {"word_embed_proj_dim": 16, "max_position_embeddings": 32, "tie_word_embeddings": False}
BART = {"model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 3, "tie_word_embeddings": False}
BART |= {"max_position_embeddings": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
BART |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
POLICIES = {
    "CausalLM": lambda trained, **more: CausalLM(config=GPT2, train=trained, **more),
    "CausalLM-opt": lambda trained, **more: CausalLM(config=OPT, train=trained, **more),
    "Seq2SeqLM": lambda trained, **more: Seq2SeqLM(config=BART, train=trained, **more),
    "ImageCaptioner": lambda trained, **more: ImageCaptioner(None, GPT2, train=trained, **more),
    "Recurrent": lambda trained, **more: Recurrent(embedding=8, hidden=12, layers=3, train=trained, **more),
    "XLinearCaptioner": lambda trained, **more: XLinearCaptioner(hidden=16, heads=2, layers=2, train=trained, **more),
}
HEADS = {"Recurrent": ("output.weight", "output.bias"), "XLinearCaptioner": ("output.weight", "output.bias")}
BLOCKS = {
    "CausalLM": ("reader.model.transformer.h.1.", "reader.model.transformer.h.2."),
    "CausalLM-opt": ("reader.model.model.decoder.layers.1.", "reader.model.model.decoder.layers.2."),
    "Seq2SeqLM": ("reader.model.model.decoder.layers.1.", "reader.model.model.decoder.layers.2."),
    "ImageCaptioner": ("reader.model.transformer.h.1.", "reader.model.transformer.h.2."),
    "Recurrent": tuple(
        f"cells.{kind}_l{i}" for i in (1, 2) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ),
    "XLinearCaptioner": ("encoder.layers.1.", "decoder."),
}


def made(name, trained, **more):
    return bound(lambda: POLICIES[name](trained, **more), FACTS, seed=0).eval()


def learning(policy):
    return {name for name, parameter in policy.named_parameters() if parameter.requires_grad}


def after_a_step(policy):
    """The weights that a step with weight decay moved; decay moves even those without a gradient."""
    before = {name: weight.detach().clone() for name, weight in policy.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    policy(random_rollout(PROMPTS, TOKENIZER, 4)).logprobs.sum().backward()
    optimizer.step()
    return {name for name, weight in policy.named_parameters() if not torch.equal(weight, before[name])}


@pytest.mark.parametrize("name", POLICIES)
def test_the_head_alone(name):
    policy = made(name, Trained("head"))
    assert learning(policy) == set(HEADS.get(name, ("reader.model.lm_head.weight",)))
    assert after_a_step(policy) == learning(policy)
    frozen = [weight.grad for weight in policy.parameters() if not weight.requires_grad]
    assert frozen
    assert all(gradient is None for gradient in frozen)


@pytest.mark.parametrize("name", POLICIES)
def test_the_top_blocks_and_the_head(name):
    policy = made(name, Trained("top", top=2))
    every = {parameter for parameter, _ in policy.named_parameters()}
    wanted = {parameter for parameter in every if parameter.startswith(BLOCKS[name])}
    assert all(any(parameter.startswith(block) for parameter in wanted) for block in BLOCKS[name])
    assert learning(policy) == wanted | set(HEADS.get(name, ("reader.model.lm_head.weight",)))
    assert after_a_step(policy) <= learning(policy)
    check_policy(lambda: POLICIES[name](Trained("top", top=2)), FACTS, PROMPTS)


@pytest.mark.parametrize("name", POLICIES)
def test_everything(name):
    policy = made(name, EVERYTHING)
    assert learning(policy) == {parameter for parameter, _ in policy.named_parameters()}


@pytest.mark.parametrize("name", POLICIES)
def test_a_value_head_learns_in_any_case(name):
    assert {"values.linear.weight", "values.linear.bias"} < learning(made(name, Trained("head"), value_head="shared"))


@pytest.mark.parametrize("name", POLICIES)
def test_gradients_of_the_head_are_those_of_a_run_on_stored_features(name):
    policy = made(name, Trained("head"))
    rollout = random_rollout(PROMPTS, TOKENIZER, 4)
    output = policy(rollout)
    at = rollout.action_mask.nonzero(as_tuple=True)
    columns = [output.estimate(lambda states, i=i: states[:, i])[at] for i in range(output.head.weight.shape[1])]
    stored = torch.stack(columns, 1).detach()
    output.logprobs.sum().backward()
    matrix = copy.deepcopy(output.head.weight.detach()).requires_grad_()
    head = Head(matrix, None if output.head.bias is None else output.head.bias.detach())
    score_vocabulary(stored, head, rollout.tokens[at], at[1], rollout.sampling, None).logprobs.sum().backward()
    trained = dict(policy.named_parameters())[HEADS.get(name, ("reader.model.lm_head.weight",))[0]]
    torch.testing.assert_close(trained.grad, matrix.grad, atol=1e-6, rtol=1e-6)


def test_a_tied_head_is_the_word_vectors_too():
    policy = bound(lambda: CausalLM(config={**GPT2, "tie_word_embeddings": True}, train=Trained("head")), FACTS, 0)
    assert learning(policy) == {"reader.model.transformer.wte.weight"}
    tied = bound(lambda: Recurrent(embedding=8, hidden=8, tie=True, train=Trained("head")), FACTS, 0)
    assert learning(tied) == {"words.weight", "output.bias"}


def test_a_frozen_vision_encoder_stays_so_and_another_learns_with_all():
    vit = {"model_type": "vit", "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    vit |= {"image_size": 8, "patch_size": 4, "hidden_size": 12}
    prompts = example_prompts(TOKENIZER, pictures="pixels")
    facts = example_facts(TOKENIZER, prompts)
    cases = ((True, EVERYTHING, False), (False, EVERYTHING, True), (False, Trained("top"), False))
    for freeze, trained, learns in cases:
        policy = bound(lambda f=freeze, t=trained: ImageCaptioner(vit, GPT2, freeze_encoder=f, train=t), facts, 0)
        assert any(name.startswith("encoder.") for name in learning(policy)) == learns


def test_a_recipe_reads_well():
    parser = ArgumentParser()
    parser.add_argument("--policy", type=Policy)
    recipe = {"parts": "lora", "rank": 4, "alpha": 8, "targets": ["c_attn"]}
    arguments = {"config": GPT2, "train": recipe, "gradient_checkpointing": True, "value_head": "none"}
    given = {"policy": {"class_path": "lrl_plugins.policies.causal_lm.CausalLM", "init_args": arguments}}
    policy = parser.instantiate_classes(parser.parse_object(given)).policy
    assert policy.trained == Trained("lora", rank=4, alpha=8.0, targets=["c_attn"])
    line = ["--policy=lrl_plugins.policies.recurrent.Recurrent", "--policy.train.parts=top", "--policy.train.top=2"]
    assert parser.instantiate_classes(parser.parse_args(line)).policy.trained == Trained("top", top=2)


def test_refusals_name_the_cause(shapes_unchecked):
    for wrong in ({"parts": "tail"}, {"top": 0}, {"rank": 0}, {"alpha": 0.0}, {"targets": []}):
        with pytest.raises(ValueError, match=rf"train\.{next(iter(wrong))}: got"):
            Trained(**wrong)
    with pytest.raises(ValueError, match=r"train.top=4; expected at most 3"):
        made("CausalLM", Trained("top", top=4))
    with pytest.raises(ValueError, match=r"Recurrent: got train.parts='lora'"):
        Recurrent(train=Trained("lora"))

"""A tree that is read in one pass says what each of its branches says when it is read by itself."""

from dataclasses import replace

import pytest
import torch
from branching import BART, GPT2, KINDS, PLAIN, alone, branch, episodes, last_of, policy_of, prompts_of, random_tree

from lrl_core.testing.policies import bound, example_facts, example_prompts
from lrl_plugins.policies.branches import checked, lay_branches, tree_of
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.image_captioner import ImageCaptioner
from lrl_plugins.policies.layout import Prefix
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM

torch.set_num_threads(1)
T5 = {"model_type": "t5", "d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 32}
BLOOM = {"model_type": "bloom", "hidden_size": 16, "n_layer": 1, "n_head": 2}
MISTRAL = {"model_type": "mistral", "sliding_window": 3, "hidden_size": 16, "intermediate_size": 32}
MISTRAL |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}


def test_ancestors_and_depths_by_hand():
    tree = tree_of(torch.tensor([[-1, 0, -1, 1, 3, 2]]))
    assert tree.depths.tolist() == [[0, 1, 0, 2, 3, 1]]
    seen = [[0], [0, 1], [2], [0, 1, 3], [0, 1, 3, 4], [2, 5]]
    assert [row.nonzero().squeeze(1).tolist() for row in tree.ancestors[0]] == seen


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 16, 17])
def test_ancestors_of_random_trees_and_of_a_plain_line(steps):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        follows = (torch.rand(2, steps, generator=generator) * (torch.arange(steps) + 1)).long() - 1
        if seed == 2:
            follows = torch.arange(-1, steps - 1).expand(2, -1)
        tree = tree_of(follows)
        for row in range(2):
            for step in range(steps):
                expected = branch(follows[row].tolist(), step)
                assert tree.ancestors[row, step].nonzero().squeeze(1).tolist() == expected
                assert tree.depths[row, step] == len(expected) - 1


def test_layout_by_hand():
    prefix = Prefix(torch.tensor([[9, 1, 2], [9, 0, 0]]), torch.tensor([3, 1]))
    follows = torch.tensor([[-1, -1, 1], [-1, 0, 0]])
    line = lay_branches(prefix, torch.tensor([[4, 5, 6], [7, 8, 3]]), torch.tensor([3, 3]), follows)
    assert line.tokens.tolist() == [[9, 1, 2, 4, 5], [9, 9, 9, 7, 8]]
    assert line.positions.tolist() == [[0, 1, 2, 3, 3], [0, 1, 2, 1, 2]]
    assert line.before.tolist() == [[2, 2, 4], [0, 3, 3]]
    assert line.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]
    assert line.mask[1, 0, 3:].int().tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 1, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_says_what_each_of_its_branches_says(kind):
    policy, rollout = policy_of(kind), random_tree(episodes(kind))
    assert policy.branches
    apart, places = alone(rollout, rollout.follows)
    ours, theirs = policy(rollout), policy(apart)
    assert (ours.states[places] - policy(replace(rollout, follows=None)).states[places]).abs().max() > 0.1
    torch.testing.assert_close(ours.states[places], last_of(apart, theirs.states), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.logprobs[places], last_of(apart, theirs.logprobs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gpt2-right", "llama"])
def test_padded_rows_say_what_a_packed_line_says(kind):
    """The way of models that cannot be packed."""
    policy, rollout = policy_of(kind), random_tree(episodes(kind))
    packed = policy(rollout).states
    assert policy.reader.packs
    policy.reader.packs = False
    torch.testing.assert_close(policy(rollout).states, packed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "gpt2-lora", "marian", "captioner"])
def test_gradients_are_those_of_the_branches(kind, recompute):
    policy, rollout = policy_of(kind, gradient_checkpointing=recompute), random_tree(episodes(kind))
    apart, places = alone(rollout, rollout.follows)
    gradients = []
    weights = torch.linspace(-1, 1, len(apart))
    for spoken in (lambda: policy(rollout).logprobs[places], lambda: last_of(apart, policy(apart).logprobs)):
        policy.zero_grad()
        (spoken() * weights).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(gradient.abs().max() > 0.01 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_a_plain_line_written_as_a_tree_is_a_plain_line(kind):
    policy, rollout = policy_of(kind), episodes(kind)
    line = replace(rollout, follows=torch.arange(-1, 7).expand(5, -1))
    torch.testing.assert_close(policy(line).states, policy(rollout).states, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_what_stands_behind_an_episode_and_one_token_alone_do_no_harm(kind):
    policy, rollout = policy_of(kind), random_tree(episodes(kind))
    behind = torch.arange(8) >= rollout.lengths[:, None]
    assert behind.any()
    other = replace(rollout, follows=rollout.follows.masked_fill(behind, 7))
    assert policy(other).logprobs.equal(policy(rollout).logprobs)
    first = replace(episodes(kind, steps=1), follows=torch.zeros(5, 1).long(), lengths=torch.zeros(5).long())
    assert policy(first).states.isfinite().all()
    assert (
        policy(replace(first, lengths=torch.ones(5).long(), follows=torch.full((5, 1), -1))).logprobs.isfinite().all()
    )


def test_a_tree_may_have_more_tokens_than_the_model_has_places():
    policy = bound(lambda: CausalLM(config={**GPT2, "n_positions": 7}), example_facts(PLAIN, prompts_of("gpt2")), 0)
    rollout = replace(episodes("gpt2", steps=6), follows=torch.full((5, 6), -1))
    assert policy.eval()(rollout).logprobs.isfinite().all()
    with pytest.raises(ValueError, match="room for 7"):
        policy(replace(rollout, follows=None))


def test_the_mode_is_untouched_and_nothing_is_left_behind():
    policy, rollout = policy_of("bart"), random_tree(episodes("bart"))
    before = list(policy.state_dict())
    policy.train()
    policy(rollout)
    assert all(module.training for module in policy.modules())
    table = policy.reader.part.embed_positions
    assert not table._forward_hooks
    assert not table._forward_pre_hooks
    assert list(policy.state_dict()) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: Seq2SeqLM(config=T5),
        lambda: CausalLM(config=BLOOM),
        lambda: CausalLM(config=MISTRAL),
    ],
    ids=["t5", "bloom", "mistral"],
)
def test_models_that_count_in_columns_refuse_trees_and_read_plain_lines(make):
    prompts = example_prompts(PLAIN)
    policy, rollout = bound(make, example_facts(PLAIN, prompts), seed=0).eval(), episodes("gpt2")
    assert not policy.branches
    assert policy(rollout).logprobs.isfinite().all()
    with pytest.raises(ValueError, match="expected plain lines"):
        policy(random_tree(rollout))
    with pytest.raises(ValueError, match=f"{type(policy.reader.model).__name__} counts distance in columns; expected"):
        policy.reader.follows(random_tree(rollout))


def test_a_model_that_does_as_it_likes_is_found_out(monkeypatch):
    """One that reads positions but not the mask of every pair is noticed by its numbers when it is bound."""
    facts = example_facts(PLAIN, prompts_of("captioner-bart"))
    from transformers.models.bart import modeling_bart

    make = modeling_bart.create_causal_mask

    def deaf(attention_mask=None, **others):
        pairs = attention_mask is not None and attention_mask.ndim == 4
        return make(attention_mask=None if pairs else attention_mask, **others)

    monkeypatch.setattr(modeling_bart, "create_causal_mask", deaf)
    policy = bound(lambda: ImageCaptioner(None, {**BART, "decoder_start_token_id": 1}), facts, seed=0)
    assert not policy.branches
    with pytest.raises(ValueError, match="gives other numbers for branches"):
        policy.reader.follows(random_tree(episodes("captioner-bart")))


def test_a_token_that_follows_itself_is_refused():
    follows, lengths = torch.tensor([[-1, 0, 2]]), torch.tensor([3])
    with pytest.raises(ValueError, match=r"Me: token 2 of row 0 follows token 2 of its line; expected -1"):
        checked(follows, lengths, "Me")
    assert checked(follows, torch.tensor([2]), "Me").tolist() == [[-1, 0, -1]]
    with pytest.raises(ValueError, match="follows token -2"):
        checked(torch.tensor([[-2]]), torch.tensor([1]), "Me")

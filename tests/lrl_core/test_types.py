from dataclasses import replace

import pytest
import torch

from lrl_core.testing.parts import bigram_world, toy_experience
from lrl_core.testing.toy import toy_prompts
from lrl_core.types import Experience, Prompts, Rollout


def prompts():
    return Prompts(
        tokens=torch.tensor([[1, 2], [3, 0], [1, 2]]),
        lengths=torch.tensor([2, 1, 2]),
        group=torch.tensor([5, 6, 5]),
        references=(("a",), ("b", "c"), ("a",)),
        targets=torch.tensor([[1, 9, 0], [2, 3, 9], [4, 9, 0]]),
        target_lengths=torch.tensor([2, 3, 2]),
        features={"pixels": torch.arange(3.0)},
        examples=({"id": "x"}, {"id": "y"}, {"id": "x"}),
    )


def test_select_takes_rows_of_everything_in_order_with_repeats():
    rows = prompts().select(torch.tensor([1, 1, 0]))
    assert rows.lengths.tolist() == [1, 1, 2]
    assert rows.references == (("b", "c"), ("b", "c"), ("a",))
    assert rows.features["pixels"].tolist() == [1, 1, 0]
    assert [example["id"] for example in rows.examples] == ["y", "y", "x"]


def test_distinct_keeps_the_first_of_each_group():
    distinct, index = prompts().distinct()
    assert distinct.group.tolist() == [5, 6]
    assert index.tolist() == [0, 1, 0]
    assert distinct.targets.tolist() == [[1, 9, 0], [2, 3, 9]]


def test_to_reaches_nested_batches():
    rollout = toy_experience().rollout.to("meta")
    assert rollout.tokens.is_meta
    assert rollout.prompts.group.is_meta
    assert rollout.texts == ("abc", "b", "ca", "aabc")


def test_human_answers_as_if_rolled_out():
    expert = Rollout.of_targets(prompts())
    assert expert.action_mask.int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 0]]
    assert expert.sampling is None
    assert Rollout.of_targets(toy_prompts()) is None


def test_trimmed_drops_columns_of_padding_only():
    rollout = toy_experience().rollout.select(torch.tensor([1, 2]))
    assert rollout.trimmed().tokens.tolist() == [[1, 3, 0], [2, 0, 3]]


@pytest.mark.parametrize(("budget", "sizes"), [(None, [4]), (1, [2, 2]), (8, [2, 2]), (24, [4]), (23, [2, 2])])
def test_micro_batches_respect_the_budget_and_keep_groups_together(budget, sizes):
    """Two groups of two episodes and one human answer each: three rows of four tokens per group."""
    parts = toy_experience().split(budget)
    assert [len(part.rollout) for part in parts] == sizes
    groups = [set(part.rollout.prompts.group.tolist()) for part in parts]
    assert sum(len(group) for group in groups) == 2
    for part in parts:
        assert set(part.expert.prompts.group.tolist()) == set(part.rollout.prompts.group.tolist())
        assert part.advantage.value.shape == part.rollout.tokens.shape


def test_micro_batches_of_human_answers_alone():
    experience = Experience(expert=Rollout.of_targets(prompts()))
    parts = experience.split(6)
    assert [part.expert.tokens.tolist() for part in parts] == [[[1, 9], [4, 9]], [[2, 3, 9]]]


def test_unjudged_rows_and_environment_words_do_not_teach():
    assert toy_experience().learn_mask.int().tolist() == [[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_policy_output_is_zero_off_the_mask_and_has_no_gradient_there():
    policy, _ = bigram_world()
    rollout = toy_experience().rollout
    output = policy(rollout)
    assert (output.logprobs[~rollout.action_mask] == 0).all()
    assert (output.entropy[~rollout.action_mask] == 0).all()
    changed = replace(rollout, tokens=rollout.tokens.masked_fill(~rollout.action_mask, 2))
    same = policy(changed).logprobs  # only what stands before a chosen token matters
    assert torch.allclose(same[2], output.logprobs[2])


def talked():
    """The toy episodes with what an environment had closed and paid."""
    experience = toy_experience()
    closed = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]).bool()
    paid = torch.tensor([[0, 0, 0, 1.0], [0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 3.0]])
    rollout = replace(experience.rollout, closed=closed, environment_reward=paid)
    return replace(experience, rollout=rollout)


def test_what_was_closed_stays_with_its_tokens():
    rollout = talked().rollout
    picked = rollout.select(torch.tensor([2, 1]))
    assert picked.closed.int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
    trimmed = picked.trimmed()
    assert trimmed.closed.int().tolist() == [[1, 0, 1], [0, 1, 0]]
    assert trimmed.environment_reward.tolist() == [[0, 2, 0], [0, 0, 0]]
    joined = Rollout.cat([trimmed, rollout.select(torch.tensor([3]))])
    assert joined.closed.int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def test_what_was_closed_survives_micro_batches():
    parts = talked().split(1)
    assert [part.rollout.closed.int().tolist() for part in parts] == [
        [[1, 1, 0, 0], [0, 1, 0, 0]],
        [[1, 0, 1, 0], [0, 0, 0, 1]],
    ]
    again = Experience.cat(parts)
    assert again.rollout.closed.equal(talked().rollout.closed)
    assert again.rollout.environment_reward.equal(talked().rollout.environment_reward)


def test_parts_of_which_one_has_no_environment_are_not_joined():
    with pytest.raises(ValueError, match=r"differ in environment_reward.*Join only what one decoder"):
        Rollout.cat([toy_experience().rollout, talked().rollout])

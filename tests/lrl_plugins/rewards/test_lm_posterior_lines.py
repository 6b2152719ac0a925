import math
from dataclasses import replace

import pytest
import torch

from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.testing.toy import TablePolicy, toy_prompts
from lrl_core.types import Rollout
from lrl_plugins.rewards.lm_posterior_lines import (
    Said,
    added_up,
    by_beginning,
    ended,
    of_right_label,
    rows_of_beginnings,
    spoken,
    tree,
    whole,
)

EOS = 2
A, B = 0, 1
INF = math.inf


def rollout(lines, width=None):
    lengths = torch.tensor([len(line) for line in lines])
    width = width or int(lengths.max())
    tokens = torch.tensor([[*line, *[0] * (width - len(line))] for line in lines], dtype=torch.long)
    return Rollout(
        prompts=toy_prompts(len(lines), same=False),
        tokens=tokens.view(len(lines), width),
        lengths=lengths,
        action_mask=length_mask(lengths, width),
        logprobs=torch.zeros(len(lines), width),
        terminated=torch.ones(len(lines), dtype=torch.bool),
        sampling=Sampling(),
    )


def said(lines, tails, width=None):
    episodes = rollout(lines, width)
    return Said.of(episodes, episodes.prompts, tails, EOS)


# Sums


def test_the_worth_of_every_prefix_by_hand():
    """p(z) = .5, .2 and then stops with .3, .25, .1; the finished answer's value is repeated."""
    words = torch.tensor([[0.5, 0.2], [0.5, 9.0]]).log()
    ends = torch.tensor([[0.3, 0.25, 0.1], [0.3, 0.25, 9.0]]).log()
    worth = by_beginning(words, ends, torch.tensor([2, 1]), 5)
    expected = [[0.3, 0.125, 0.01, 0.01, 0.01], [0.3, 0.125, 0.125, 0.125, 0.125]]
    torch.testing.assert_close(worth.exp(), torch.tensor(expected))


def test_prefixes_too_short_or_impossible_are_worth_the_floor():
    words = torch.tensor([[-1.0, -INF, -1.0]])
    ends = torch.tensor([[-0.5, -0.5, -0.5, -0.5]])
    worth = by_beginning(words, ends, torch.tensor([3]), 4, shortest=2, floor=-70.0)
    assert worth.tolist() == [[-70.0, -1.5, -70.0, -70.0]]
    # A length of at least 2 with the end counted: one word is enough.
    assert by_beginning(words, ends, torch.tensor([3]), 4, shortest=1)[0, 0] == -0.5


def test_an_episode_without_words_has_one_prefix():
    worth = by_beginning(torch.zeros(1, 0), torch.tensor([[-0.25]]), torch.tensor([0]), 3)
    assert worth.tolist() == [[-0.25, -0.25, -0.25]]


def test_another_label_that_is_likelier_costs_the_penalty():
    tails = torch.tensor([[[-1.0, -2.0, -3.0], [-2.0, -2.0, -5.0]]])
    assert of_right_label(tails, torch.tensor([0]), -50.0).tolist() == [[-1.0, -2.0]]  # as likely is not likelier
    assert of_right_label(tails, torch.tensor([1]), -50.0).tolist() == [[-52.0, -2.0]]
    assert of_right_label(tails[:, :, :1], torch.tensor([0]), -50.0).tolist() == [[-1.0, -2.0]]
    assert of_right_label(torch.tensor([[[-INF, -1.0]]]), torch.tensor([0]), -50.0).tolist() == [[-INF]]


# Lines


def test_the_end_token_is_no_word_and_only_at_the_end():
    found = said([[A, B, EOS], [A, B, A], [EOS], [EOS, A, EOS]], ((),) * 4)
    assert found.lengths.tolist() == [2, 3, 0, 2]
    assert found.tokens.shape == (4, 3)
    line = ended(found, EOS, Sampling(banned=(1,)))
    assert line.lengths.tolist() == [3, 4, 1, 3]
    assert line.tokens[0, :3].tolist() == [A, B, EOS]
    assert line.tokens[1].tolist() == [A, B, A, EOS]
    assert line.action_mask.sum(1).tolist() == [3, 4, 1, 3]


def test_a_tree_has_a_tail_after_every_prefix():
    sheet = tree(said([[A, B, EOS]], (((B, EOS),),)))
    assert sheet.rollout.tokens.tolist() == [[A, B, B, EOS, B, EOS, B, EOS]]
    assert sheet.rollout.follows.tolist() == [[-1, 0, -1, 2, 0, 4, 1, 6]]
    assert sheet.rollout.closed.tolist() == [[True, True, *[False] * 6]]
    assert sheet.owner.tolist() == [[0, 1, 2, 2, 3, 3, 4, 4]]


def test_a_tree_of_labels_has_all_of_them_after_every_prefix():
    sheet = tree(said([[A, EOS], [EOS]], (((B,), (A, EOS)), ((B,), (A, EOS)))))
    assert sheet.rollout.tokens.tolist() == [[A, B, A, EOS, B, A, EOS], [B, A, EOS, 0, 0, 0, 0]]
    assert sheet.rollout.follows[0].tolist() == [-1, -1, -1, 2, 0, 0, 5]
    assert sheet.rollout.follows[1, :3].tolist() == [-1, -1, 1]
    assert sheet.rollout.lengths.tolist() == [7, 3]
    # Row 0: one word, then (prefix, label) 00 01 10 11; row 1 begins at 5.
    assert sheet.owner.tolist() == [[0, 1, 2, 2, 3, 4, 4], [6, 7, 7, 10, 10, 10, 10]]


def test_no_token_follows_itself_or_a_later_one():
    sheet = tree(said([[A, B, A, B], [B, EOS]], (((A, B, A),), ((B,),))))
    places = torch.arange(sheet.rollout.tokens.shape[1])
    assert bool((sheet.rollout.follows < places).all())


def test_line_by_line_every_sum_is_counted_once():
    one = said([[A, B, EOS], [EOS]], (((B, EOS),), ((A,),)))
    lines = rows_of_beginnings(one)
    assert [ids[:n] for ids, n in zip(lines.rollout.tokens.tolist(), lines.rollout.lengths.tolist(), strict=True)] == [
        [B, EOS],
        [A, B, EOS],
        [A, B, B, EOS],
        [A],
    ]
    assert lines.rollout.follows is None
    for sheet in (lines, tree(one)):
        words, tails = added_up(sheet, sheet.rollout.action_mask.float(), one)
        assert words.tolist() == [[1, 1], [0, 0]]
        assert tails.squeeze(2).tolist() == [[2, 2, 2], [1, 0, 0]]


def test_words_are_read_under_their_bans_and_tails_under_none():
    """p = .5, .2, .3; without b the word a has .625; the tail may say b all the same."""
    policy = TablePolicy([[math.log(0.5), math.log(0.2), math.log(0.3)]], eos=EOS)
    sheet = whole(said([[A, EOS]], (((B, EOS),),)))
    assert sheet.rollout.tokens.tolist() == [[A, B, EOS]]
    (logprobs,) = spoken(policy(sheet.rollout), Sampling(banned=(B,)))
    assert logprobs.exp().tolist()[0] == pytest.approx([0.625, 0.2, 0.3])
    logprobs.sum().backward()
    # d/d logits of log p: the word teaches a against EOS alone, the tail everything.
    expected = [1 - 0.625 - 2 * 0.5, 1 - 2 * 0.2, -0.375 + 1 - 2 * 0.3]
    assert policy.table.grad.tolist()[0] == pytest.approx(expected)


def test_whatever_stands_in_padding_changes_nothing():
    one = said([[A, B, EOS], [B, EOS]], (((B,),), ((A,),)))
    other = replace(one, tokens=one.tokens.clone())
    other.tokens[1, 1] = B
    for make in (tree, rows_of_beginnings, whole):
        assert torch.equal(make(one).rollout.tokens, make(other).rollout.tokens)
        assert torch.equal(make(one).owner, make(other).owner)

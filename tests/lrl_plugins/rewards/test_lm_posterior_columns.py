from dataclasses import replace

import pytest
import torch

from lrl_core.testing.toy import ToyTokenizer, toy_prompts
from lrl_plugins.rewards.lm_posterior_columns import Columns

TOKENIZER = ToyTokenizer(5, eos=4)
ROWS = ({"x": "ab", "y": "c"}, {"x": "b", "y": "cd"}, {"x": "ab", "y": None})


def prompts(rows=ROWS, same=False):
    return replace(toy_prompts(len(rows), same=same), examples=tuple(rows))


def columns(before=None, after=None, ends=True, labels=None):
    return Columns(TOKENIZER, before, after, ends, labels)


def test_without_columns_the_prompt_stays_and_nothing_follows():
    asked = prompts()
    assert columns().prompts(asked) is asked
    assert columns().tails(asked) == ((), (), ())
    assert columns().known(asked).all()
    assert columns().tokens_read(torch.tensor([2, 0, 1]), asked).tolist() == [3, 1, 2]


def test_texts_become_ids():
    asked = prompts()
    before = columns(before="x").prompts(asked)
    assert before.tokens.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert before.lengths.tolist() == [2, 1, 2]
    assert columns(after="y").tails(asked)[:2] == (((2, 4),), ((2, 3, 4),))
    assert columns(after="y", ends=False).tails(asked)[:2] == (((2,),), ((2, 3),))
    assert columns(after="y").tokens_read(torch.tensor([2, 0, 1]), asked)[:2].tolist() == [4, 3]


def test_rows_of_one_group_are_one_prompt():
    assert columns(before="x").prompts(prompts(same=True)).group.tolist() == [0, 1, 0]
    assert len(columns(before="x").prompts(prompts()).group.unique()) == 3


def test_null_and_nothing_cannot_be_judged():
    assert columns(after="y").known(prompts()).tolist() == [True, True, False]
    assert columns(before="y").known(prompts()).tolist() == [True, True, False]
    empty = prompts([{"y": ""}, {"y": "a"}])
    assert columns(after="y", ends=False).known(empty).tolist() == [False, True]
    assert columns(after="y").known(empty).tolist() == [True, True]


def test_every_label_follows_and_one_is_right():
    asked = prompts()
    found = columns(after="y", labels=["cd", "c"])
    assert found.tails(asked)[2] == ((2, 3, 4), (2, 4))
    assert found.right(asked).tolist() == [1, 0, 0]
    assert found.tokens_read(torch.tensor([0, 0]), asked.select(torch.tensor([0, 1]))).tolist() == [2, 3]


def test_refusals_name_the_column_and_what_there_is():
    with pytest.raises(ValueError, match=r"without column 'z'; .*Columns there: \['x', 'y'\]"):
        columns(after="z").check(prompts())
    with pytest.raises(ValueError, match="got 3 of type int in column 'x'; expected a text or null"):
        columns(before="x").check(prompts([{"x": 3}]))
    with pytest.raises(ValueError, match=r"got 'cd' in column 'y'; expected one of the labels \['c'\]"):
        columns(after="y", labels=["c"]).check(prompts())
    with pytest.raises(ValueError, match="got 0 examples for 2 prompts"):
        columns(after="y").check(toy_prompts(2))
    columns().check(toy_prompts(2))

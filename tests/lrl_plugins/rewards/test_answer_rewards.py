"""ExactMatch and NumericAnswer."""

from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.registry import PluginError
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, facts_of
from lrl_plugins.rewards.answers import ExactMatch, NumericAnswer

torch.set_num_threads(1)
ROLLOUT = example_rollout()
GOLDS = ("A horse", None, ["a cat", 7], "3 dogs", 0.5, "no number")
WITH_COLUMN = replace(
    ROLLOUT,
    prompts=replace(ROLLOUT.prompts, examples=tuple({"id": str(i), "gold": gold} for i, gold in enumerate(GOLDS))),
)


def scored(reward, texts, golds):
    one = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    prompts = replace(one.prompts, examples=tuple({"gold": gold} for gold in golds))
    return judge(reward, replace(one, prompts=prompts, texts=tuple(texts))).total.tolist()


def right(reward, text, gold):
    return scored(reward, [text], [gold])[0]


@pytest.mark.parametrize("kind", [ExactMatch, NumericAnswer])
def test_conforms(kind):
    check_reward(kind)
    check_reward(lambda: kind(column="gold"), WITH_COLUMN)
    check_reward(lambda: kind(column="gold", marker="a"), WITH_COLUMN)


def test_exact_match_against_references():
    texts = ("A person riding a horse!", "a horse", "a cat", "The cat is on a mat", "Two dogs", "")
    signal = judge(ExactMatch(), replace(ROLLOUT, texts=texts))
    assert signal.total.tolist() == [1, 0, 0, 1, 0, 0]
    assert signal.parts.keys() == {"exact_match"}
    assert judge(ExactMatch(lower=False), replace(ROLLOUT, texts=texts)).total.tolist() == [0] * 6
    assert judge(ExactMatch(strip_punctuation=False), replace(ROLLOUT, texts=texts)).total.tolist() == [
        0,
        0,
        0,
        1,
        0,
        0,
    ]


def test_exact_match_against_a_column():
    texts = ["a horse.", "x", "7", "3 dog", "0.5", "no number"]
    got = torch.tensor(scored(ExactMatch(column="gold"), texts, GOLDS))
    assert got.isnan().tolist() == [False, True, False, False, False, False]
    assert got[~got.isnan()].tolist() == [1, 1, 0, 1, 1]


def test_exact_match_after_a_marker():
    reward = ExactMatch(column="gold", marker="Answer:")
    assert right(reward, "I think. Answer: no. Answer: Yes.", "yes") == 1
    assert right(reward, "yes", "yes") == 0  # the marker is missing
    assert right(reward, "Answer: yes", "Because. Answer: yes") == 1


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        ("so it is 72", 72, 1),
        ("16 - 3 = 13 eggs, $1,234.50", "1234.5", 1),
        ("minus: -5", 5, 0),
        ("3/4", 0.75, 1),
        ("0.333333", "1/3", 1),  # within 1e-6
        ("0.3333", "1/3", 0),
        ("I do not know", 3, 0),
        ("1000001", 1000000, 0),
        ("7", ["6", 7], 1),
        ("4", "6 = 2 * 3\n#### 6", 0),
        ("6", "6 = 2 * 3\n#### 6", 1),
    ],
)
def test_numbers_against_a_column(text, gold, score):
    assert right(NumericAnswer(column="gold"), text, gold) == score


def test_numbers_after_a_marker():
    reward = NumericAnswer(column="gold", marker="####")
    assert right(reward, "2 + 3 = 5\n#### 5 of 9", "1 + 4\n#### 5") == 1
    assert right(reward, "#### 5", 5) == 1  # a gold number needs no marker
    assert right(reward, "the answer is 5", 5) == 0
    assert right(reward, "#### 4 #### 5", 5) == 1


def test_tolerance():
    assert right(NumericAnswer(column="gold", tolerance=0.5), "10.5", 10) == 1
    assert right(NumericAnswer(column="gold", tolerance=0.4), "10.5", 10) == 0
    assert right(NumericAnswer(column="gold", tolerance=0), "0.1", 0.1) == 1  # read as written, not as a binary float


def test_without_a_gold_number_nothing_is_judged():
    got = torch.tensor(scored(NumericAnswer(column="gold"), ["3"] * 4, [None, "none", [], float("nan")]))
    assert got.isnan().all()
    assert judge(NumericAnswer(), ROLLOUT).total.isnan().all()  # captions have no numbers


def test_a_misspelt_column_is_refused_when_the_task_is_known():
    with pytest.raises(ValueError, match="Did you mean 'gold'"):
        bind_all(NumericAnswer(column="golds"), facts_of(WITH_COLUMN))
    with pytest.raises(ValueError, match="id"):
        bind_all(ExactMatch(column="golds"), facts_of(ROLLOUT))


def test_prompts_without_examples_are_refused():
    bare = replace(ROLLOUT, prompts=replace(ROLLOUT.prompts, examples=()))
    with pytest.raises(PluginError, match="gold"):
        judge(ExactMatch(column="gold"), bare)


@pytest.mark.parametrize("make", [lambda: NumericAnswer(tolerance=-1), lambda: ExactMatch(marker="")])
def test_impossible_arguments_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()

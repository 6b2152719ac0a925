import math
import sys
import types
from dataclasses import replace

import numpy
import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.registry import PluginError
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, example_tokenizer, facts_of
from lrl_plugins.rewards.function import Function
from lrl_plugins.rewards.values import as_rewards

ROLLOUT = example_rollout()
FACTS = facts_of(ROLLOUT)
ROWS = len(ROLLOUT)


@pytest.fixture
def mine(monkeypatch):
    """Puts functions into a module of that name."""
    module = types.ModuleType("my_rewards")
    monkeypatch.setitem(sys.modules, "my_rewards", module)

    def put(function):
        module.judged = function
        return "my_rewards:judged"

    return put


def scored(path, rollout=ROLLOUT, **arguments):
    reward = Function(path, **arguments)
    bind_all(reward, FACTS)
    return judge(reward, rollout)


def test_conforms(mine):
    path = mine(lambda texts: [len(text) if text else None for text in texts])
    check_reward(lambda: Function(path))


def test_texts_come_first_and_none_is_nan(mine):
    signal = scored(mine(lambda answers: [len(text) / 2 if text else None for text in answers]))
    assert signal.total[:5].tolist() == [len(text) / 2 for text in ROLLOUT.texts[:5]]
    assert signal.total[5].isnan()
    assert signal.parts.keys() == {"judged"}


def test_what_is_asked_for_by_name_is_given(mine):
    ids = example_tokenizer().encode("two dogs")
    prompts = replace(ROLLOUT.prompts, tokens=torch.tensor([ids] * ROWS), lengths=torch.tensor([2, 1, 0, 2, 2, 2]))
    seen = {}

    def judged(references, prompts, *, examples, texts, scale=1.0, unit):
        seen.update(references=references, prompts=prompts, examples=examples, texts=texts, unit=unit)
        return torch.full((len(texts),), scale, dtype=torch.float64)

    arguments = {"scale": 0.5, "unit": "m"}
    signal = scored(mine(judged), replace(ROLLOUT, prompts=prompts), arguments=arguments)
    assert signal.total.tolist() == [0.5] * ROWS
    assert seen["texts"] == list(ROLLOUT.texts)
    assert seen["references"] == list(ROLLOUT.prompts.references)
    assert seen["prompts"] == ["two dogs", "two", "", "two dogs", "two dogs", "two dogs"]
    assert seen["examples"] == list(ROLLOUT.prompts.examples)
    assert seen["unit"] == "m"


def test_what_the_task_lacks_is_empty(mine):
    bare = replace(ROLLOUT, prompts=replace(ROLLOUT.prompts, references=None, examples=()))

    def judged(texts, references, examples):
        return [len(r) + len(e) for r, e in zip(references, examples, strict=True)]

    signal = scored(mine(judged), bare)
    assert signal.total.tolist() == [0.0] * ROWS


def test_functions_without_a_signature_get_the_texts():
    # What it returns is no series of numbers, which is said by name.
    with pytest.raises(PluginError, match=r"Function \(builtins:max\) gave a str"):
        scored("builtins:max")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0] * (ROWS - 1), f"gave {ROWS - 1} values; expected {ROWS} numbers, one per text .* nothing is broadcast"),
        (1.0, "gave a float; expected 6 numbers"),
        ({"rewards": []}, "gave a dict"),
        ("123456", "gave a str"),
        (torch.ones(ROWS, 1), r"gave a tensor of shape \[6, 1\]"),
        (torch.tensor(1.0), r"gave a tensor of shape \[\]"),
        (["0.5"] * ROWS, "gave '0.5' of type str for text 0; expected a number, None or NaN"),
        ([0.0, math.inf] * 3, "gave inf for text 1; expected a finite number"),
    ],
)
def test_wrong_values_are_refused_and_never_filled_in(mine, given, message):
    with pytest.raises(PluginError, match=rf"Function \(my_rewards:judged\) {message}"):
        scored(mine(lambda texts: given))


def test_values_that_are_taken():
    for given in (
        [1, True, None, 0.5],
        (1, 1.0, math.nan, 0.5),
        numpy.array([1, 1, math.nan, 0.5]),
        iter([1, 1, None, 0.5]),
    ):
        assert torch.equal(as_rewards("x", given, 4).nan_to_num(nan=-7), torch.tensor([1, 1, -7, 0.5]))
    assert as_rewards("x", [torch.tensor(2.0)], 1).tolist() == [2]


def test_a_function_that_raises_is_named_with_its_path(mine):
    def judged(texts):
        raise KeyError("score")

    with pytest.raises(PluginError, match=r"Function \(my_rewards:judged\) failed on 6 texts: KeyError: 'score'"):
        scored(mine(judged))


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("lrl_plugins.rewards", ValueError, "expected package.module:function"),
        ("no_such_package.rewards:judged", ImportError, "importing no_such_package.rewards fails .ModuleNotFoundError"),
        ("lrl_core.tokenizer:wods", ImportError, "has no function 'wods'.*Did you mean 'words'"),
        ("math:pi", ImportError, "has no function 'pi'"),
    ],
)
def test_what_cannot_be_imported_is_said_when_the_recipe_is_read(path, error, message):
    with pytest.raises(error, match=message):
        Function(path)


def test_signatures_that_cannot_be_served_are_refused_when_the_recipe_is_read(mine):
    for function, arguments in ((lambda: [], {}), (lambda texts, keys: [], {}), (lambda texts: [], {"scale": 2})):
        with pytest.raises(ValueError, match="expected the texts first, then any of references, examples, prompts"):
            Function(mine(function), arguments)


def test_whether_rows_are_compared_is_the_author_s_word(mine):
    path = mine(lambda texts: [sum(map(len, texts))] * len(texts))
    check_reward(lambda: Function(path, rowwise=False))
    with pytest.raises(AssertionError, match="differently when alone"):
        check_reward(lambda: Function(path))

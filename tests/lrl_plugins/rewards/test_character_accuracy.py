from dataclasses import replace

import pytest
import torch

from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_plugins.rewards.character_accuracy import CharacterAccuracy


def scored(texts, references):
    rollout = example_rollout().select(torch.arange(len(texts)))
    prompts = replace(rollout.prompts, references=references)
    return judge(CharacterAccuracy(), replace(rollout, texts=texts, prompts=prompts))


def test_conforms():
    check_reward(CharacterAccuracy)


def test_by_hand():
    signal = scored(("kitten", "", "a cat", "abcdef"), (("sitting",), ("cat",), ("a cat",), ("ab",)))
    expected = [1 - 3 / 7, 0.0, 1.0, -1.0]
    assert signal.total.tolist() == pytest.approx(expected)
    assert signal.parts["1-CER"].equal(signal.total)


def test_the_best_reference_counts_and_none_cannot_be_judged():
    signal = scored(("cat", "cat"), (("dog", "cut", "cats"), ()))
    assert signal.total[0].item() == pytest.approx(1 - 1 / 4)
    assert signal.total[1].isnan()

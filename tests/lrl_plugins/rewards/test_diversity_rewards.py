"""Repetition, DistinctN and SelfBLEU."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lrl_core.metrics.bleu import sentence_bleu
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_plugins.rewards.diversity import DistinctN, Repetition, SelfBLEU

torch.set_num_threads(1)
ROLLOUT = example_rollout()


def said(*texts, group=None):
    one = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    prompts = replace(one.prompts, group=torch.tensor(group or [0] * len(texts)))
    return replace(one, prompts=prompts, texts=texts)


@pytest.mark.parametrize("make", [Repetition, lambda: Repetition(1), DistinctN, lambda: DistinctN(1)])
def test_conforms(make):
    check_reward(make)


def test_self_bleu_conforms():
    check_reward(SelfBLEU)
    assert not SelfBLEU.rowwise
    assert not SelfBLEU.comparable


def test_repeated_and_distinct_ngrams():
    texts = said("a b a b a b", "a b c d", "a", "", "No, no. NO!")
    # 1-grams: 2 of 6, 4 of 4, 1 of 1, none, 1 of 3; 2-grams: 2 of 5, 3 of 3, none, none, 1 of 2.
    assert judge(DistinctN(1), texts).total.tolist() == pytest.approx([2 / 6, 1, 1, 0, 1 / 3])
    assert judge(DistinctN(2), texts).total.tolist() == pytest.approx([2 / 5, 1, 0, 0, 1 / 2])
    assert judge(Repetition(2), texts).total.tolist() == pytest.approx([-3 / 5, 0, 0, 0, -1 / 2])
    assert judge(Repetition(), texts).total.tolist() == pytest.approx([-1 / 3, 0, 0, 0, 0])


def test_self_bleu_compares_within_the_group_only():
    texts = ("a b c d e", "a b c x y", "a b c d e", "q r s t u", "a b c d e", "a b c d e")
    got = judge(SelfBLEU(), said(*texts, group=[7, 7, 7, 7, 3, 3])).total.tolist()
    rest = [[other.split() for j, other in enumerate(texts[:4]) if j != i] for i in range(4)]
    expected = [
        -sentence_bleu(texts[i].split(), rest[i], smoothing="floor", effective_order=True)[-1] for i in range(4)
    ]
    assert got == pytest.approx([*expected, -1, -1])
    assert got[0] == pytest.approx(-1)
    assert got[3] == 0
    assert -1 < got[1] < 0


def test_short_samples_that_are_equal_are_not_new():
    assert judge(SelfBLEU(), said("yes", "Yes.", "no")).total.tolist() == pytest.approx([-1, -1, 0])
    assert judge(SelfBLEU(), said("", "", "no")).total.tolist() == pytest.approx([-1, -1, 0])


def test_a_sample_without_others_cannot_be_judged():
    got = judge(SelfBLEU(), said("a b", "a b", "a b", group=[1, 2, 1])).total
    assert got.isnan().tolist() == [False, True, False]
    assert got[[0, 2]].tolist() == pytest.approx([-1, -1])
    assert judge(SelfBLEU(), said("a b", "a b", group=[1, 2])).total.isnan().all()


def test_self_bleu_refuses_a_single_sample_per_prompt():
    with pytest.raises(ValueError, match="at least 2"):
        SelfBLEU().check(SimpleNamespace(decoder=SimpleNamespace(samples=1)))
    SelfBLEU().check(SimpleNamespace(decoder=SimpleNamespace(samples=2)))
    SelfBLEU().check(SimpleNamespace(decoder=None))


@pytest.mark.parametrize("kind", [Repetition, DistinctN, SelfBLEU])
def test_impossible_arguments_are_refused(kind):
    with pytest.raises(ValueError, match="expected"):
        kind(0)

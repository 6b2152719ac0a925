from dataclasses import replace

import pytest
import torch

from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_plugins.rewards import each
from lrl_plugins.rewards.bleu import BLEU
from lrl_plugins.rewards.texts import tokenised

ROLLOUT = example_rollout()


@pytest.mark.parametrize("make", [BLEU, lambda: BLEU(n=2, smoothing="exp", reference_length="average", eos=True)])
def test_conforms(make):
    check_reward(make)


@pytest.mark.parametrize(("smoothing", "expected"), [("none", 0), ("exp", 0.193049), ("add_one", 0.324668)])
def test_golden_smoothings(smoothing, expected):
    prompts = replace(ROLLOUT.prompts, references=(("The cat is on the mat.",),) * len(ROLLOUT))
    said = replace(ROLLOUT, prompts=prompts, texts=("The cat sat on a mat",) * len(ROLLOUT))
    signal = judge(BLEU(smoothing=smoothing), said)
    assert signal.total.tolist() == pytest.approx([expected] * len(ROLLOUT), abs=1e-6)
    assert signal.parts.keys() == {"BLEU_4"}


def test_the_end_token_tells_a_cut_caption_from_a_whole_one():
    first = ROLLOUT.select(torch.tensor([0, 0]))
    prompts = replace(first.prompts, references=(("a man riding",),) * 2)
    both = replace(first, prompts=prompts, texts=("a man riding",) * 2, terminated=torch.tensor([True, False]))
    whole, cut = judge(BLEU(eos=True), both).total.tolist()
    assert whole == pytest.approx(1)
    assert cut < 0.8  # three of four tokens: the brevity penalty exp(1 - 4/3)
    assert judge(BLEU(n=2), both).total.tolist() == pytest.approx([1, 1])


def test_equal_candidates_are_tokenised_once(monkeypatch):
    asked = []
    monkeypatch.setattr(each, "tokenised", lambda text, ended: asked.append(text) or tokenised(text, ended))
    twice = ROLLOUT.select(torch.tensor([0, 2, 0, 2, 4]))
    reward = BLEU()
    total = judge(reward, twice).total
    assert total[:2].tolist() == total[2:4].tolist()
    wanted = [text for row in (0, 2, 4) for text in ROLLOUT.prompts.references[row]]
    assert asked == [*(ROLLOUT.texts[row] for row in (0, 2, 4)), *wanted]
    assert torch.equal(judge(reward, twice).total, total)
    assert len(asked) == len(wanted) + 6  # the references are remembered


def test_rows_without_references_cannot_be_judged():
    prompts = replace(ROLLOUT.prompts, references=((), *ROLLOUT.prompts.references[1:]))
    assert judge(BLEU(), replace(ROLLOUT, prompts=prompts)).total.isnan().tolist() == [True] + [False] * 5


@pytest.mark.parametrize("arguments", [{"n": 0}, {"smoothing": "add-k"}, {"reference_length": "longest"}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        BLEU(**arguments)

"""chrF and TER."""

import copy
import gzip
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sacrebleu.metrics import CHRF
from sacrebleu.metrics import TER as SacreTER  # noqa: N811

from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_plugins.rewards.chrf import ChrF
from lrl_plugins.rewards.ter import TER

torch.set_num_threads(1)
ROLLOUT = example_rollout()
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "multi30k_de_en"


def scored(reward, texts, references):
    one = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    prompts = replace(one.prompts, references=tuple(map(tuple, references)))
    return judge(reward, replace(one, prompts=prompts, texts=tuple(texts))).total.tolist()


@pytest.fixture(scope="module")
def pairs():
    file = SHARED / "val.de.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/multi30k_de_en/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        sentences = [line.strip() for _, line in zip(range(32), lines, strict=False)]
    shuffled = [" ".join(sorted(sentence.split())) for sentence in sentences]
    texts = sentences[:15] + shuffled[15:30]
    return texts, [sentences[i + 1 : i + 3] if i < 15 else [sentences[i]] for i in range(30)]


@pytest.mark.parametrize("make", [ChrF, lambda: ChrF(words=2, lower=True), TER, lambda: TER(normalized=True)])
def test_conforms(make):
    check_reward(make)


@pytest.mark.parametrize(
    ("reward", "metric"),
    [
        (ChrF(), CHRF()),
        (ChrF(words=2, lower=True), CHRF(word_order=2, lowercase=True)),
        (ChrF(4, beta=1), CHRF(4, beta=1)),
    ],
)
def test_chrf_equals_sacrebleu(pairs, reward, metric):
    expected = [metric.sentence_score(text, own).score / 100 for text, own in zip(*pairs, strict=True)]
    assert scored(reward, *pairs) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("reward", "metric"),
    [(TER(), SacreTER()), (TER(True, True, True), SacreTER(normalized=True, no_punct=True, case_sensitive=True))],
)
def test_ter_is_one_minus_sacrebleus(pairs, reward, metric):
    expected = [1 - metric.sentence_score(text, own).score / 100 for text, own in zip(*pairs, strict=True)]
    assert scored(reward, *pairs) == pytest.approx(expected, abs=1e-6)


def test_higher_is_better():
    texts = ["a man rides a horse", "a man rides a cow", "x", "so many words that there are more edits than words"]
    got = scored(TER(), texts, [["a man rides a horse"]] * 4)
    assert got == pytest.approx([1, 0.8, 0, 1 - 10 / 5])


def test_rows_without_references_cannot_be_judged():
    for reward in (ChrF(), TER()):
        got = torch.tensor(scored(reward, ["a", "a"], [[], ["a"]]))
        assert got.isnan().tolist() == [True, False]


def test_copies_score_alike():
    for reward in (ChrF(), TER()):
        before = judge(reward, ROLLOUT).total
        for other in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
            assert judge(other, ROLLOUT).total.tolist() == before.tolist()


@pytest.mark.parametrize("arguments", [{"characters": 0}, {"words": -1}, {"beta": 0}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        ChrF(**arguments)

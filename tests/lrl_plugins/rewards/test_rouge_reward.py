import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_core.tokenizer import words
from lrl_plugins.rewards.rouge import ROUGE

torch.set_num_threads(1)
ROLLOUT = example_rollout()
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "coco_captions_val2017"


def scored(reward, texts, references):
    one = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    prompts = replace(one.prompts, references=tuple(map(tuple, references)))
    return judge(reward, replace(one, prompts=prompts, texts=tuple(texts))).total.tolist()


@pytest.fixture(scope="module")
def captions():
    file = SHARED / "metric_check_human1000.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/coco_captions_val2017/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][:100]
    return [row["candidate"] for row in rows], [row["references"] for row in rows]


@pytest.mark.parametrize("variant", ["rouge1", "rouge2", "rouge9", "rougeL", "rougeL_coco"])
def test_conforms(variant):
    check_reward(lambda: ROUGE(variant))


def test_conforms_with_stems():
    check_reward(lambda: ROUGE("rouge1", "recall", stem=True, tokens="rouge_score"))


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize(("measure", "field"), [("f1", "fmeasure"), ("precision", "precision"), ("recall", "recall")])
def test_equals_rouge_score(captions, measure, field, stem):
    texts, references = captions
    for variant in ("rouge1", "rouge2", "rougeL"):
        scorer = RougeScorer([variant], use_stemmer=stem)
        expected = [
            max(getattr(scorer.score(reference, text)[variant], field) for reference in own)
            for text, own in zip(texts, references, strict=True)
        ]
        got = scored(ROUGE(variant, measure, stem=stem, tokens="rouge_score"), texts, references)
        assert got == pytest.approx(expected, abs=1e-6)


def test_the_coco_variant_equals_pycocoevalcap(captions):
    texts, references = captions
    rows = [(" ".join(words(text)), [" ".join(words(r)) for r in own]) for text, own in zip(*captions, strict=True)]
    expected = [Rouge().calc_score([text], own) for text, own in rows]
    assert scored(ROUGE("rougeL_coco"), texts, references) == pytest.approx(expected, abs=1e-6)


def test_hand_made_numbers():
    # The best of two references: 2 of 3 words said, 2 of 4 wanted; and all of a shorter one.
    assert scored(ROUGE("rouge1"), ["a b x"], [["a b c d", "q"]]) == pytest.approx([4 / 7])
    assert scored(ROUGE("rouge1", "recall"), ["a b x"], [["a b c d", "x"]]) == pytest.approx([1])
    # MIXER's reward: no 4-gram on either side is no reward.
    assert scored(ROUGE("rouge4", "recall"), ["a b c", "a b c d"], [["a b c"], ["a b c d e"]]) == pytest.approx(
        [0, 0.5]
    )


def test_words_of_every_language_count_by_default():
    texts, references = ["Eine Kuh muht über Köln"], [["eine kuh muht über köln"]]
    assert scored(ROUGE("rouge2"), texts, references) == pytest.approx([1])
    assert scored(ROUGE("rouge1"), ["北京"], [["北京"]]) == pytest.approx([1])
    assert scored(ROUGE("rouge1", tokens="rouge_score"), ["北京"], [["北京"]]) == [0]


def test_rows_without_references_cannot_be_judged():
    got = torch.tensor(scored(ROUGE(), ["a", "a"], [[], ["a"]]))
    assert got.isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    "arguments",
    [{"variant": "rouge0"}, {"variant": "rougeLsum"}, {"measure": "f2"}, {"tokens": "bytes"},
     {"variant": "rougeL_coco", "measure": "recall"}],
)  # fmt: skip
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        ROUGE(**arguments)

import gzip
import json
import random
from pathlib import Path

import pytest
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from lrl_core.metrics.ngrams import ngrams_of
from lrl_core.metrics.rouge import longest_common_subsequences, rouge_l, rouge_l_overlap, rouge_n

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "coco_captions_val2017"


def rows_of(name):
    file = SHARED / f"metric_check_{name}.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/coco_captions_val2017/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines][:200]


def test_golden_numbers():
    # LCS 4 of 6 and 6; LCS 3 of 4 and 6.
    assert rouge_l(["a", "b", "c", "d", "x", "y"], [["a", "b", "c", "d", "u", "v"]]) == pytest.approx(
        0.666667, abs=1e-6
    )
    assert rouge_l(["a", "b", "c", "x"], [["a", "b", "c", "u", "v", "w"]]) == pytest.approx(0.579114, abs=1e-6)


def test_ngrams_count_at_most_as_often_as_in_the_other_text():
    overlap = rouge_n(ngrams_of(["the", "the", "the", "cat"], 1), ngrams_of(["the", "cat", "sat"], 1))
    assert (overlap.precision, overlap.recall) == pytest.approx((2 / 4, 2 / 3))
    assert overlap.f1 == pytest.approx(4 / 7)
    short = rouge_n(ngrams_of(["a", "b", "c"], 4), ngrams_of(["a", "b", "c"], 4))
    assert short == (0, 0)  # no 4-gram on either side
    assert short.f1 == 0


def test_subsequences_may_have_gaps_and_keep_order():
    left = ["a", "x", "b", "y", "c"]
    assert longest_common_subsequences(left, [["a", "b", "c"], ["c", "b", "a"], [], ["z"]]) == [3, 1, 0, 0]
    assert longest_common_subsequences([], [["a"]]) == [0]


def test_subsequences_equal_the_textbook_recursion():
    def textbook(left, right):
        table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
        for i, a in enumerate(left, 1):
            for j, b in enumerate(right, 1):
                table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
        return table[-1][-1]

    draw = random.Random(0)
    for _ in range(150):
        left, *rights = (draw.choices("abcd", k=draw.randrange(80)) for _ in range(3))
        assert longest_common_subsequences(left, rights) == [textbook(left, right) for right in rights]


def test_bounds():
    assert rouge_l(["a", "b"], [["x"], ["a", "b"]]) == pytest.approx(1)
    assert rouge_l([], [["a"]]) == 0
    assert rouge_l(["a"], [["b"], []]) == 0


def test_precision_and_recall_may_come_from_different_references():
    candidate, long, short = ["a", "b", "c", "d"], ["a", "b", "c", "d", "e", "f", "g", "h"], ["a"]
    # Precision 4/4 from the long one, recall 1/1 from the short one.
    assert rouge_l(candidate, [long, short]) == pytest.approx(1)


@pytest.mark.parametrize("name", ["fakecap126", "human1000"])
def test_equals_pycocoevalcap_on_coco_captions(name):
    rows = rows_of(name)
    scores = [rouge_l(r["tok_candidate"].split(), [t.split() for t in r["tok_references"]]) for r in rows]
    assert scores == pytest.approx([r["scores"]["ROUGE_L"] for r in rows], abs=1e-8)
    expected = [Rouge().calc_score([r["tok_candidate"]], r["tok_references"]) for r in rows[:50]]
    assert scores[:50] == pytest.approx(expected, abs=1e-9)


def test_equals_rouge_score_on_coco_captions():
    scorer, split = RougeScorer(["rouge1", "rouge2", "rougeL"]), DefaultTokenizer(use_stemmer=False).tokenize
    for row in rows_of("human1000")[:100]:
        for reference in row["references"]:
            said, wanted = split(row["candidate"]), split(reference)
            expected = scorer.score(reference, row["candidate"])
            got = {f"rouge{n}": rouge_n(ngrams_of(said, n), ngrams_of(wanted, n)) for n in (1, 2)}
            got["rougeL"] = rouge_l_overlap(said, wanted)
            for name, overlap in got.items():
                assert (*overlap, overlap.f1) == pytest.approx(tuple(expected[name]), abs=1e-12)

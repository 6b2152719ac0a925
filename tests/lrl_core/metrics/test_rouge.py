import gzip
import json
from pathlib import Path

import pytest
from pycocoevalcap.rouge.rouge import Rouge

from lrl_core.metrics.rouge import longest_common_subsequence, rouge_l

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "coco_captions_val2017"


def test_golden_numbers():
    # LCS 4 of 6 and 6; LCS 3 of 4 and 6.
    assert rouge_l(["a", "b", "c", "d", "x", "y"], [["a", "b", "c", "d", "u", "v"]]) == pytest.approx(
        0.666667, abs=1e-6
    )
    assert rouge_l(["a", "b", "c", "x"], [["a", "b", "c", "u", "v", "w"]]) == pytest.approx(0.579114, abs=1e-6)


def test_subsequences_may_have_gaps_and_keep_order():
    assert longest_common_subsequence(["a", "x", "b", "y", "c"], ["a", "b", "c"]) == 3
    assert longest_common_subsequence(["a", "b", "c"], ["c", "b", "a"]) == 1
    assert longest_common_subsequence([], ["a"]) == 0


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
    file = SHARED / f"metric_check_{name}.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/coco_captions_val2017/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][:200]
    scores = [rouge_l(r["tok_candidate"].split(), [t.split() for t in r["tok_references"]]) for r in rows]
    assert scores == pytest.approx([r["scores"]["ROUGE_L"] for r in rows], abs=1e-8)
    expected = [Rouge().calc_score([r["tok_candidate"]], r["tok_references"]) for r in rows[:50]]
    assert scores[:50] == pytest.approx(expected, abs=1e-9)

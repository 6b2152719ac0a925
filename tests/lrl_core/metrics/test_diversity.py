import gzip
import json
import random
from pathlib import Path

import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from pycocoevalcap.bleu.bleu import Bleu

from lrl_core.metrics.diversity import distinct_n, self_bleu

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "coco_captions_val2017"


def test_golden_distinct():
    corpus = [line.split() for line in ("a b a b", "a b c", "c c c c")]
    assert distinct_n(corpus, 1) == pytest.approx(3 / 11)
    assert distinct_n(corpus, 2) == pytest.approx(4 / 8)
    assert distinct_n(corpus, 3) == pytest.approx(4 / 5)
    assert distinct_n(corpus, 5) is None


def test_self_bleu_of_equal_and_of_unrelated_sentences():
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3) == pytest.approx([1, 1, 1])
    assert self_bleu([["yes"], ["yes"], ["no"]]) == pytest.approx(
        [1, 1, 0]
    )  # too short for 2-grams, equal all the same
    assert self_bleu([[], [], ["a"]]) == [1, 1, 0]
    assert self_bleu([[], ["a"]]) == [0, 0]


def test_a_sentence_is_no_reference_of_its_own():
    # "the" stands twice in the first alone: clipped to once there, to twice in the second.
    first, second = ["the", "the", "cat"], ["the", "cat", "sat"]
    assert self_bleu([first, second], n=1) == pytest.approx([2 / 3, 2 / 3])


def test_self_bleu_wants_others():
    with pytest.raises(ValueError, match="at least 2"):
        self_bleu([["a"]])


def test_sentences_are_judged_within_their_groups():
    draw = random.Random(1)
    groups = [draw.randrange(4) for _ in range(40)]
    sentences = [draw.choices("abc", k=draw.randrange(7)) for _ in groups]
    got = self_bleu(sentences, groups=groups)
    for group in range(4):
        rows = [i for i, own in enumerate(groups) if own == group]
        assert [got[i] for i in rows] == pytest.approx(self_bleu([sentences[i] for i in rows]), abs=1e-12)
    with pytest.raises(ValueError, match="got 1 sentences"):
        self_bleu([["a"], ["b"], ["c"]], groups=[0, 1, 1])


def test_self_bleu_equals_pycocoevalcap_with_all_others_as_references():
    draw = random.Random(2)
    texts = [" ".join(draw.choices("abcdefgh", k=draw.randrange(1, 12))) for _ in range(40)]
    rest = {i: texts[:i] + texts[i + 1 :] for i in range(40)}
    expected = Bleu(4).compute_score(rest, {i: [text] for i, text in enumerate(texts)}, verbose=0)[1][3]
    got = self_bleu([text.split() for text in texts], smoothing="coco", effective_order=False)
    assert got == pytest.approx(expected, abs=1e-9)


def nltk_self_bleu(sentences, n):
    method = SmoothingFunction().method1
    rest = [sentences[:i] + sentences[i + 1 :] for i in range(len(sentences))]
    pairs = zip(rest, sentences, strict=True)
    return [sentence_bleu(others, said, [1 / n] * n, smoothing_function=method) for others, said in pairs]


@pytest.mark.parametrize("n", [2, 4])
def test_self_bleu_equals_nltk_on_coco_captions(n):
    file = SHARED / "references.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/coco_captions_val2017/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        groups = [json.loads(line)["captions"] for _, line in zip(range(40), lines, strict=False)]
    for captions in groups:
        sentences = [caption.lower().split() for caption in captions]
        assert self_bleu(sentences, n) == pytest.approx(nltk_self_bleu(sentences, n), abs=1e-9)


def test_self_bleu_equals_nltk_on_repetitive_sentences():
    draw = random.Random(0)
    for _ in range(50):
        sentences = [draw.choices("ab", k=draw.randrange(4, 9)) for _ in range(draw.randrange(2, 6))]
        assert self_bleu(sentences, 3) == pytest.approx(nltk_self_bleu(sentences, 3), abs=1e-9)

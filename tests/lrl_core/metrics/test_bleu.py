"""Hand-made constants, sacrebleu and pycocoevalcap."""

import gzip
import json
import random
from pathlib import Path

import pytest
import sacrebleu
from pycocoevalcap.bleu.bleu_scorer import BleuScorer

from lrl_core.metrics.bleu import BleuCounter, bleu, corpus_bleu, sentence_bleu

CANDIDATE, REFERENCE = ["the", "cat", "sat", "on", "a", "mat"], ["the", "cat", "is", "on", "the", "mat"]
TOY_REFERENCES = [
    [text.split() for text in row]
    for row in (
        ("a man rides a horse", "a person riding a horse"),
        ("a cat sits on the mat", "the cat is on a mat"),
        ("two dogs play in the park", "dogs playing in a park"),
    )
]
TOY_CANDIDATES = [text.split() for text in ("a man riding a horse", "a cat on the mat", "the the the the")]
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "coco_captions_val2017"


def random_corpus(size=60):
    """Short sentences over few words, so that every order has matches and misses; two references each."""
    rng = random.Random(3)

    def sentence():
        return [rng.choice(["a", "b", "c", "d", "e"]) for _ in range(rng.randint(1, 9))]

    return [sentence() for _ in range(size)], [[sentence(), sentence()] for _ in range(size)]


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [
        ("none", 0),
        ("floor", 0.102669),
        ("exp", 0.193049),
        ("add_one", 0.324668),
        ("add_one_all", 0.330316),
        ("coco", 1.0267e-08),
    ],
)
def test_golden_smoothings(smoothing, expected):
    score = sentence_bleu(CANDIDATE, [REFERENCE], smoothing=smoothing)[-1]
    assert score == pytest.approx(expected, rel=1e-4)


def test_golden_corpus():
    scores = corpus_bleu(TOY_CANDIDATES, TOY_REFERENCES, smoothing="coco")
    assert scores == pytest.approx([0.68111835, 0.5675048, 0.41172984, 5.898e-05], rel=1e-4)


def test_statistics_by_hand():
    statistics = BleuCounter().compare([CANDIDATE, ["the"]], ["x", "x"], lambda key: [REFERENCE])
    assert statistics.matches.tolist() == [[4, 1, 0, 0], [1, 0, 0, 0]]
    assert statistics.totals.tolist() == [[6, 5, 4, 3], [1, 0, 0, 0]]
    assert (statistics.length.tolist(), statistics.reference_length.tolist()) == ([6, 1], [6, 6])
    total = statistics.sum()
    assert (total.matches.tolist(), total.length.tolist()) == ([[5, 1, 0, 0]], [7])


def test_repeated_words_count_as_often_as_in_one_reference():
    references = [["the", "x"], ["the", "the", "y"]]
    assert BleuCounter().compare([["the"] * 5], [0], lambda key: references).matches[0, 0] == 2


@pytest.mark.parametrize(("which", "expected"), [("closest", 4), ("shortest", 2), ("average", 4)])
def test_reference_lengths(which, expected):
    # Lengths 2, 4, 6 for a candidate of 5: 4 and 6 are equally close, the shorter wins.
    references = [[["x"] * 2, ["x"] * 4, ["x"] * 6], [["x"] * 9]]
    statistics = BleuCounter(2, which).compare([["x"] * 5, ["y"]], [0, 1], references.__getitem__)
    assert statistics.reference_length.tolist() == [expected, 9]


def test_batches_score_as_their_sentences_alone():
    candidates, references = random_corpus()
    counter = BleuCounter()
    for rows in (slice(0, 20), slice(0, 60), slice(30, 60)):
        keys = range(60)[rows]
        together = bleu(counter.compare(candidates[rows], keys, references.__getitem__), "exp")
        assert together.tolist() == [sentence_bleu(candidates[i], references[i], smoothing="exp") for i in keys]


def test_forgetting_references_changes_nothing(monkeypatch):
    candidates, references = random_corpus()
    expected = BleuCounter().compare(candidates, range(60), references.__getitem__)
    monkeypatch.setattr("lrl_core.metrics.bleu.LIMIT", 40)
    counter, asked = BleuCounter(), []
    for key in [*range(60), 59, 0]:
        own = counter.compare([candidates[key]], [key], lambda key: asked.append(key) or references[key])
        assert own.matches.tolist() == [expected.matches[key].tolist()]
    assert asked == [*range(60), 0]  # 59 is still remembered, 0 is not
    assert counter.compare([], [], references.__getitem__).matches.shape == (0, 4)


def test_corpus_is_no_mean_of_sentences():
    # One word right out of one, none out of three: 1/4, while the sentences' mean is 1/2.
    assert corpus_bleu([["a"], ["x", "x", "x"]], [[["a"]], [["y", "y", "y"]]])[0] == pytest.approx(0.25)


@pytest.mark.parametrize("smoothing", ["none", "floor", "exp", "add_one", "add_one_all"])
def test_equal_sentences_score_one_and_empty_ones_zero(smoothing):
    assert sentence_bleu(REFERENCE, [REFERENCE], smoothing=smoothing) == pytest.approx([1, 1, 1, 1])
    assert sentence_bleu([], [REFERENCE], smoothing=smoothing) == [0, 0, 0, 0]


def test_short_sentences_have_no_long_ngrams_unless_the_order_is_effective():
    assert sentence_bleu(["a", "b"], [["a", "b"]])[-1] == 0
    assert sentence_bleu(["a", "b"], [["a", "b"]], effective_order=True)[-1] == pytest.approx(1)


def test_unknown_smoothing_is_refused():
    with pytest.raises(ValueError, match=r"smoothing is 'add-k'.*add_one"):
        sentence_bleu(["a"], [["a"]], smoothing="add-k")


@pytest.mark.parametrize(
    ("smoothing", "theirs"), [("none", "none"), ("floor", "floor"), ("exp", "exp"), ("add_one", "add-k")]
)
def test_equals_sacrebleu(smoothing, theirs):
    candidates, references = random_corpus()
    sentence = sacrebleu.BLEU(tokenize="none", smooth_method=theirs, effective_order=False)
    for candidate, own in zip(candidates, references, strict=True):
        expected = sentence.sentence_score(" ".join(candidate), [" ".join(text) for text in own]).score / 100
        assert sentence_bleu(candidate, own, smoothing=smoothing)[-1] == pytest.approx(expected, abs=1e-9)
    said, known = [" ".join(c) for c in candidates], [[" ".join(r[i]) for r in references] for i in range(2)]
    expected = sacrebleu.BLEU(tokenize="none", smooth_method=theirs).corpus_score(said, known).score / 100
    assert corpus_bleu(candidates, references, smoothing=smoothing)[-1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("smoothing", ["none", "floor", "exp"])
def test_equals_sacrebleu_with_effective_order(smoothing):
    theirs = sacrebleu.BLEU(tokenize="none", smooth_method=smoothing, effective_order=True)
    for candidate, own in zip(*random_corpus(), strict=True):
        expected = theirs.sentence_score(" ".join(candidate), [" ".join(text) for text in own]).score / 100
        score = sentence_bleu(candidate, own, smoothing=smoothing, effective_order=True)[-1]
        assert score == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("which", ["closest", "shortest", "average"])
def test_equals_pycocoevalcap(which):
    candidates, references = random_corpus()
    scorer = BleuScorer(n=4)
    for candidate, own in zip(candidates, references, strict=True):
        scorer += (" ".join(candidate), [" ".join(text) for text in own])
    corpus, sentences = scorer.compute_score(option=which, verbose=0)
    assert corpus_bleu(candidates, references, smoothing="coco", reference_length=which) == pytest.approx(corpus, 1e-9)
    for i, (candidate, own) in enumerate(zip(candidates, references, strict=True)):
        score = sentence_bleu(candidate, own, smoothing="coco", reference_length=which)
        assert score == pytest.approx([order[i] for order in sentences], abs=1e-9)


@pytest.mark.parametrize("name", ["fakecap126", "human1000"])
def test_equals_the_stored_scores_of_coco_captions(name):
    file = SHARED / f"metric_check_{name}.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/coco_captions_val2017/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    corpus = json.loads((SHARED / "metric_check_corpus.json").read_text(encoding="utf-8"))[name]
    candidates = [row["tok_candidate"].split() for row in rows]
    references = [[text.split() for text in row["tok_references"]] for row in rows]
    keys = [f"Bleu_{n}" for n in range(1, 5)]
    scores = corpus_bleu(candidates, references, smoothing="coco")
    assert scores == pytest.approx([corpus[key] for key in keys], abs=1e-9)
    for candidate, own, row in zip(candidates, references, rows, strict=True):
        score = sentence_bleu(candidate, own, smoothing="coco")
        assert score == pytest.approx([row["scores"][key] for key in keys], abs=1e-8)

"""GLEU: counts by hand, and NLTK's own."""

import random

import pytest

from lrl_core.metrics.gleu import corpus_gleu, gleu_counts


def test_counts_by_hand():
    """3 words make 3 + 2 + 1 n-grams, all of which stand among the 6 + 5 + 4 + 3 of the reference."""
    said, known = ["the", "cat", "sat"], ["the", "cat", "sat", "on", "the", "mat"]
    assert gleu_counts(said, known) == (6, 18)
    assert gleu_counts(["a", "a", "a"], ["a", "b"], n=2) == (1, 5)
    assert corpus_gleu([said], [[known]]) == pytest.approx(1 / 3)
    assert corpus_gleu([["a", "b"]], [[["a", "b"]]]) == 1


def test_a_corpus_sums_before_it_divides_and_takes_the_best_reference():
    pairs = [("a b", ["x y z", "a b c"]), ("x", ["y"])]  # 3 of 6, of the better reference; 0 of 1
    found = corpus_gleu([said.split() for said, _ in pairs], [[text.split() for text in own] for _, own in pairs])
    assert found == pytest.approx(3 / 7)


def test_nothing_said_of_nothing_is_zero():
    assert corpus_gleu([[]], [[[]]]) == 0
    assert corpus_gleu([[]], [[["a"]]]) == 0
    with pytest.raises(ValueError, match="gleu got 2 candidates and 1 sets"):
        corpus_gleu([["a"], ["b"]], [[["a"]]])


def test_equals_nltk():
    library = pytest.importorskip("nltk.translate.gleu_score")
    draw = random.Random(0)

    def sentence(least):
        return [draw.choice("abcde") for _ in range(draw.randint(least, 9))]

    said = [sentence(0) for _ in range(40)]
    known = [[sentence(1) for _ in range(draw.randint(1, 3))] for _ in said]
    assert corpus_gleu(said, known) == pytest.approx(library.corpus_gleu(known, said), abs=1e-12)

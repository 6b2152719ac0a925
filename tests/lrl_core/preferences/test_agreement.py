import random

import pytest

from lrl_core.preferences.agreement import agreement, krippendorff_alpha

# Three observers, fifteen units, missing values: the worked example of Krippendorff's alpha in reference works.
A, B, C = "*****34121133*3", "1*213343*******", "**21344*21133*4"


def test_krippendorff_alpha_of_the_worked_example():
    units = [[value for value in unit if value != "*"] for unit in zip(A, B, C, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.691, abs=5e-4)


def test_krippendorff_alpha_by_hand():
    # Pairs aa, bb, ab: values 3 a, 3 b; observed 2 / 6, expected 18 / 30; 1 - (1/3) / (3/5) = 4/9.
    assert krippendorff_alpha(["aa", "bb", "ab"]) == pytest.approx(4 / 9)
    assert krippendorff_alpha(["aa", "bb"]) == 1
    assert krippendorff_alpha(["ab", "ba"]) == pytest.approx(-0.5)  # observed 1, expected 8 / 12
    assert krippendorff_alpha(["aa", "aa"]) is None


def test_alpha_of_chance_is_zero():
    drawn = random.Random(1)
    assert abs(krippendorff_alpha([[drawn.randrange(4), drawn.randrange(4)] for _ in range(20_000)])) < 0.02


def test_agreement_is_about_the_best_answers():
    judgments = [
        (1, "ann", (0, 1, 2)),
        (1, "bob", (0, 2, 1)),  # the same best
        (2, "ann", (0, 0, 1)),
        (2, "bob", (0, 1, 1)),  # a tie is another answer
        (3, "ann", (1, 0, 1)),  # nobody else
        (4, "ann", (1, 1, 0)),
        (4, "bob", (1, 0, 1)),
        (4, "bob", (1, 1, 0)),  # bob thought again
        (5, "ann", (0, 1, 1)),
        (5, "bob", (0, 1, 1)),
        (5, "cem", (1, 0, 1)),  # one of three differs
    ]
    found = agreement(judgments)
    assert found.questions == 4
    assert found.same == 2 / 4
    units = [[(0,), (0,)], [(0, 1), (0,)], [(2,), (2,)], [(0,), (0,), (1,)]]
    assert found.alpha == krippendorff_alpha(units)


def test_nobody_to_agree_with():
    assert agreement([]) == agreement([(1, "ann", (0, 1)), (2, "bob", (1, 0))]) == (0, None, None)

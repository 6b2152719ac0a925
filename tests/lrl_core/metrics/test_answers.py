import gzip
import json
from fractions import Fraction
from pathlib import Path

import pytest

from lrl_core.metrics.answers import after_marker, answered_number, first_number, last_number, normalised

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "gsm8k"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", 72),
        ("She sells 16 - 3 = 13 eggs.", 13),
        ("-3.50 degrees", Fraction(-7, 2)),
        ("it was −4", -4),
        ("10-3", 3),  # an operator or a hyphen, no sign
        ("(-3)", -3),
        ("it costs $1,234.50.", Fraction(2469, 2)),
        ("-$5", -5),
        ("$-5", -5),
        ("1,2,3", 3),  # a list
        ("1,2345", 2345),
        ("2,000,000", 2_000_000),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("1 1/2 cups", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("1,000 1/2", Fraction(2001, 2)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{1}{3}", Fraction(-1, 3)),
        ("1.5e3", 1500),
        ("2e-2", Fraction(1, 50)),
        ("9007199254740993", 9007199254740993),  # floats cannot say it
        ("20%", 20),
        ("7 em", 7),
        ("3/0", None),
        ("none", None),
        ("", None),
        ("9" * 10_000, None),
    ],
)
def test_numbers(text, number):
    assert last_number(text) == number


def test_first_and_last():
    assert first_number("from 3 to 5 of 7") == 3
    assert last_number("from 3 to 5 of 7") == 7
    assert first_number("nothing") is None


def test_markers():
    assert after_marker("a #### 1 #### 2", "####") == " 2"
    assert after_marker("a", "####") is None
    assert after_marker("a", None) == "a"
    assert answered_number("6 of 7 #### 5 eggs and 3", "####") == 5
    assert answered_number("6 of 7", "####") is None
    assert answered_number("6 #### none", "####") is None
    assert answered_number("6 of 7") == 7


def test_normalised():
    assert normalised("  The Answer,\n is: it's “5”! ") == "the answer is its 5"
    assert normalised("A, b", lower=False) == "A b"
    assert normalised("A,  b", strip_punctuation=False) == "a, b"
    assert normalised("?!") == "?!"  # or it would equal every other punctuation


def rows_of(name):
    file = SHARED / name
    if not file.is_file():
        pytest.skip(f"needs shared/data/gsm8k/{name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_every_gold_answer_of_gsm8k_is_read():
    for row in rows_of("train.jsonl.gz"):
        plain = row["answer"].rpartition("####")[2].strip().replace(",", "")
        assert answered_number(row["answer"], "####") == Fraction(plain)


def test_agrees_with_the_judgements_published_with_gsm8k():
    compared = agreed = 0
    for row in rows_of("example_model_solutions.jsonl.gz"):
        gold = answered_number(row["ground_truth"], "A:")
        assert gold is not None
        for model in row.values():
            if isinstance(model, dict):
                compared += 1
                agreed += (answered_number(model["solution"], "A:") == gold) == model["is_correct"]
    assert compared > 1000
    assert agreed / compared > 0.995

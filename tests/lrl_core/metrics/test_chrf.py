import gzip
from pathlib import Path

import pytest
from sacrebleu.metrics import CHRF

from lrl_core.metrics.chrf import chrf, chrf_counts

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "multi30k_de_en"
HARD = [
    "",
    " ",
    "a",
    "!",
    "(hi)",
    "Ein Mann, der ...",
    "a a a a a a a a",
    "Straße",
    "日本語 の テキスト",
    "(a) [b] 'c'",
]


def sentences(name, count):
    file = SHARED / name
    if not file.is_file():
        pytest.skip(f"needs shared/data/multi30k_de_en/{name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [line.strip() for _, line in zip(range(count), lines, strict=False)]


def check(candidate, references, characters, words, beta):
    got = chrf(chrf_counts(candidate, characters, words), [chrf_counts(r, characters, words) for r in references], beta)
    expected = CHRF(char_order=characters, word_order=words, beta=beta).sentence_score(candidate, references).score
    assert got == pytest.approx(expected / 100, abs=1e-12), (candidate, references)


@pytest.mark.parametrize(("characters", "words", "beta"), [(6, 0, 2), (6, 2, 2), (3, 1, 1)])
def test_equals_sacrebleu_on_translations_and_oddities(characters, words, beta):
    lines = sentences("val.de.gz", 60)
    for i in range(1, len(lines) - 1):
        check(lines[i], [lines[i - 1], lines[i + 1]], characters, words, beta)
        check(lines[i], [lines[i][: len(lines[i]) // 2 + i % 7]], characters, words, beta)
    for candidate in HARD:
        for reference in HARD:
            check(candidate, [reference, "Ein Hund"], characters, words, beta)


def test_hand_made():
    # Characters only, up to 2: precision (2/3 + 1/2) / 2, recall (2/2 + 1/1) / 2, beta 1.
    precision, recall = (2 / 3 + 1 / 2) / 2, 1
    got = chrf(chrf_counts("abc", 2), [chrf_counts("a b", 2)], beta=1)
    assert got == pytest.approx(2 * precision * recall / (precision + recall))
    assert chrf(chrf_counts("Same text."), [chrf_counts("Same text.")]) == pytest.approx(1)
    assert chrf(chrf_counts(""), [chrf_counts("x")]) == 0

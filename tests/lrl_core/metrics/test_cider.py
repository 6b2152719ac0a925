"""Hand-made constants (official code on a toy corpus), pycocoevalcap, and an independent definition of plain CIDEr."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from lrl_core.metrics.cider import CiderScorer, DocumentFrequencies, cider, cider_d, document_frequencies

REFERENCES = [
    [text.split() for text in row]
    for row in (
        ("a man rides a horse", "a person riding a horse"),
        ("a cat sits on the mat", "the cat is on a mat"),
        ("two dogs play in the park", "dogs playing in a park"),
    )
]
CANDIDATES = [text.split() for text in ("a man riding a horse", "a cat on the mat", "the the the the")]
WITH_END = [[[*text, "0"] for text in row] for row in REFERENCES]
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "coco_captions_val2017"


def coco(name):
    """Tokenised captions of the metric check."""
    file = SHARED / f"metric_check_{name}.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/coco_captions_val2017/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    candidates = [row["tok_candidate"].split() for row in rows]
    return candidates, [[text.split() for text in row["tok_references"]] for row in rows], rows


def plain_cider(candidates, references, n=4):
    """CIDEr straight from the paper: dense tf-idf vectors over the n-grams of each order, cosine, mean."""

    def grams(tokens, order):
        return [" ".join(map(str, tokens[i : i + order])) for i in range(len(tokens) - order + 1)]

    scores = np.zeros((len(candidates), n))
    for order in range(1, n + 1):
        everything = [grams(s, order) for s in candidates] + [grams(s, order) for row in references for s in row]
        vocabulary = {gram: i for i, gram in enumerate(sorted({gram for listed in everything for gram in listed}))}
        documents = np.zeros(len(vocabulary))
        for row in references:
            documents[list({vocabulary[gram] for s in row for gram in grams(s, order)})] += 1
        idf = np.log(len(references) / np.maximum(1, documents))

        def vector(tokens, order=order, vocabulary=vocabulary, idf=idf):
            counts = np.zeros(len(vocabulary))
            np.add.at(counts, [vocabulary[gram] for gram in grams(tokens, order)], 1)
            return counts * idf

        for i, (candidate, row) in enumerate(zip(candidates, references, strict=True)):
            own = vector(candidate)
            others = [vector(s) for s in row]
            lengths = [np.linalg.norm(own) * np.linalg.norm(other) for other in others]
            cosines = [
                own @ other / length if length > 0 else 0.0 for other, length in zip(others, lengths, strict=True)
            ]
            scores[i, order - 1] = np.mean(cosines)
    return (10 * scores.mean(1)).tolist()


def test_golden_numbers_of_the_toy_corpus():
    assert cider_d(CANDIDATES, REFERENCES) == pytest.approx([3.33333333, 3.32971503, 0.04814044], abs=1e-8)
    assert cider(CANDIDATES, REFERENCES) == pytest.approx([3.33333333, 3.37628372, 0.20356239], abs=1e-8)


def test_golden_numbers_of_the_end_token_convention():
    ended = [[*candidate, "0"] for candidate in CANDIDATES]
    assert cider_d(ended, WITH_END) == pytest.approx([4.52083333, 4.17941152, 0.04814044], abs=1e-8)
    assert cider_d(CANDIDATES, WITH_END) == pytest.approx([3.10215844, 3.08867919, 0.04491079], abs=1e-8)


def test_clipping_takes_most_of_the_reward_for_repetition():
    assert cider(CANDIDATES, REFERENCES)[2] > 4 * cider_d(CANDIDATES, REFERENCES)[2]


def test_a_caption_equal_to_its_only_reference_scores_ten_and_three_words_seven_and_a_half():
    candidates = [["a", "b", "c", "d", "e"], ["x", "y", "z"], ["other"]]
    assert cider_d(candidates, [[c] for c in candidates]) == pytest.approx([10, 7.5, 2.5])


@pytest.mark.parametrize("metric", [cider, cider_d])
def test_a_corpus_of_one_document_scores_zero(metric):
    assert metric(CANDIDATES[:1], REFERENCES[:1]) == [0.0]


@pytest.mark.parametrize("metric", [cider, cider_d])
def test_nothing_said_scores_zero(metric):
    assert metric([[], [], []], REFERENCES) == [0.0, 0.0, 0.0]


def test_the_corpus_of_the_frequencies_sets_the_scale_not_the_batch():
    frequencies = document_frequencies(REFERENCES)
    alone = [cider_d([c], [r], frequencies)[0] for c, r in zip(CANDIDATES, REFERENCES, strict=True)]
    assert alone == pytest.approx(cider_d(CANDIDATES, REFERENCES))


def test_document_frequencies_count_a_document_once():
    frequencies = document_frequencies(REFERENCES)
    assert frequencies.documents == 3
    assert frequencies.counts[("a",)] == 3
    assert frequencies.counts[("the",)] == 2
    assert frequencies.counts[("a", "man")] == 1
    assert ("horse", "a") not in frequencies.counts


def test_token_ids_score_like_words():
    ids = {word: i for i, word in enumerate(sorted({w for row in REFERENCES for r in row for w in r}))}
    candidates = [[ids[w] for w in c] for c in CANDIDATES]
    references = [[[ids[w] for w in r] for r in row] for row in REFERENCES]
    assert cider_d(candidates, references) == cider_d(CANDIDATES, REFERENCES)


def test_file_brings_everything_back(tmp_path):
    for corpus in (REFERENCES, [[[1, 2, 3]], [[2, 5]]]):
        frequencies = document_frequencies(corpus, n=3)
        frequencies.to_json(tmp_path / "df.json")
        assert DocumentFrequencies.from_json(tmp_path / "df.json") == frequencies


def test_prepared_references_serve_many_candidates():
    scorer = CiderScorer(document_frequencies(REFERENCES))
    prepared = scorer.prepare(REFERENCES[1])
    scores = [scorer.score(candidate, prepared) for candidate in (CANDIDATES[1], CANDIDATES[0], CANDIDATES[1])]
    assert scores[0] == scores[2] == pytest.approx(3.32971503, abs=1e-8)
    assert scores[1] < scores[0]


def test_length_penalty_is_gaussian_in_bigrams():
    frequencies = document_frequencies([*REFERENCES, [["z"]]])
    reference = ["a", "man", "rides", "a", "horse"]
    longer = [*reference, "a"]  # "a horse a": clipping leaves the matches, the norm and the length change
    without = CiderScorer(frequencies, sigma=None).score(longer, CiderScorer(frequencies).prepare([reference]))
    with_penalty = CiderScorer(frequencies, sigma=2.0).score(longer, CiderScorer(frequencies).prepare([reference]))
    assert with_penalty / without == pytest.approx(math.exp(-1 / 8))


@pytest.mark.parametrize("name", ["fakecap126", "human1000"])
def test_equals_pycocoevalcap_on_coco_captions(name):
    candidates, references, rows = coco(name)
    said = {i: [" ".join(candidate)] for i, candidate in enumerate(candidates)}
    known = {i: [" ".join(text) for text in row] for i, row in enumerate(references)}
    expected = Cider().compute_score(known, said)[1]
    scores = cider_d(candidates, references)
    assert scores == pytest.approx(expected.tolist(), abs=1e-9)
    assert scores == pytest.approx([row["scores"]["CIDEr"] for row in rows], abs=1e-8)


def test_plain_cider_equals_the_definition():
    assert cider(CANDIDATES, REFERENCES) == pytest.approx(plain_cider(CANDIDATES, REFERENCES), abs=1e-9)


def test_plain_cider_equals_the_definition_on_coco_captions():
    candidates, references, _ = coco("fakecap126")
    assert cider(candidates, references) == pytest.approx(plain_cider(candidates, references), abs=1e-9)

"""Hand-made constants (official code on a toy corpus), pycocoevalcap, and an independent definition of plain CIDEr."""

import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from lrl_core.metrics.cider import CiderScorer, DocumentFrequencies, cider, cider_d, document_frequencies
from lrl_core.metrics.ngrams import ngram_counts

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
    scorer, asked = CiderScorer(document_frequencies(REFERENCES)), []

    def score(*candidates, key=1):
        return scorer.score(candidates, [key] * len(candidates), lambda key: asked.append(key) or REFERENCES[key])

    scores = score(CANDIDATES[1], CANDIDATES[0], CANDIDATES[1])
    assert scores[0] == scores[2] == pytest.approx(3.32971503, abs=1e-8)
    assert scores[1] < scores[0]
    assert score(CANDIDATES[1]) == scores[0]
    assert score(CANDIDATES[0], key=0) == pytest.approx(3.33333333, abs=1e-8)
    assert asked == [1, 0]
    assert score().tolist() == []


def test_length_penalty_is_gaussian_in_bigrams():
    frequencies = document_frequencies([*REFERENCES, [["z"]]])
    reference = ["a", "man", "rides", "a", "horse"]
    longer = [*reference, "a"]  # "a horse a": clipping leaves the matches, the norm and the length change
    without, with_penalty = (
        CiderScorer(frequencies, sigma=sigma).score([longer], [0], lambda key: [reference])[0] for sigma in (None, 2.0)
    )
    assert with_penalty / without == pytest.approx(math.exp(-1 / 8))


def definition(candidate, references, frequencies, n, sigma, clip):
    """CIDEr of one candidate, n-gram by n-gram."""

    def vectors(sentence):
        idf = {ngram: math.log(frequencies.documents / max(1, count)) for ngram, count in frequencies.counts.items()}
        return [
            {ngram: times * idf.get(ngram, math.log(frequencies.documents)) for ngram, times in counts.items()}
            for counts in ngram_counts(sentence, n)
        ]

    def norm(vector):
        return math.sqrt(sum(weight**2 for weight in vector.values()))

    total = 0.0
    for reference in references:
        difference = max(0, len(candidate) - 1) - max(0, len(reference) - 1)
        factor = math.exp(-(difference**2) / (2 * sigma**2)) if sigma else 1.0
        for said, wanted in zip(vectors(candidate), vectors(reference), strict=True):
            both = said.keys() & wanted.keys()
            dot = sum((min(said[ngram], wanted[ngram]) if clip else said[ngram]) * wanted[ngram] for ngram in both)
            total += factor * dot / (norm(said) * norm(wanted)) if norm(said) * norm(wanted) > 0 else 0.0
    return 10 * total / (n * len(references))


@pytest.mark.parametrize(("n", "sigma", "clip"), [(4, 6.0, True), (4, None, False), (2, 1.5, True), (5, None, True)])
def test_equals_the_definition_n_gram_by_n_gram(n, sigma, clip):
    draw = random.Random(n)

    def sentence(letters):
        return draw.choices(letters, k=draw.randrange(12))

    # Few words, so that they repeat; some of the references' are in no document, some of the candidates' in neither.
    documents = [[sentence("abcd") for _ in range(draw.randrange(1, 4))] for _ in range(12)]
    frequencies = document_frequencies(documents, n=5)
    references = [[sentence("abcdef") for _ in range(draw.randrange(1, 6))] for _ in range(40)]
    candidates, keys = [sentence("abcdefgh") for _ in range(200)], [draw.randrange(40) for _ in range(200)]
    scorer = CiderScorer(frequencies, n, sigma, clip)
    for rows in (slice(0, 3), slice(50, 100), slice(0, 200)):  # references are met at different times
        expected = [
            definition(said, references[key], frequencies, n, sigma, clip)
            for said, key in zip(candidates[rows], keys[rows], strict=True)
        ]
        got = scorer.score(candidates[rows], keys[rows], references.__getitem__).tolist()
        assert got == pytest.approx(expected, abs=1e-9)
    assert sum(score > 1 for score in got) > 5


def test_frequencies_without_the_ngrams_that_others_begin_with_are_fine():
    frequencies = DocumentFrequencies({("a", "b"): 3, ("c",): 2, ("b", "c", "d"): 4}, documents=9)
    references = [[["a", "b", "c", "d"]], [["b", "c", "d"], ["c"]]]
    candidates = [["b", "c", "d", "a", "b"], ["c", "d", "x"]]
    expected = [
        definition(said, own, frequencies, 4, 6.0, True) for said, own in zip(candidates, references, strict=True)
    ]
    assert cider_d(candidates, references, frequencies) == pytest.approx(expected, abs=1e-9)


def test_forgetting_references_changes_nothing(monkeypatch):
    expected = cider_d(CANDIDATES, REFERENCES)
    monkeypatch.setattr("lrl_core.metrics.cider.LIMIT", 20)
    scorer, asked = CiderScorer(document_frequencies(REFERENCES)), []
    for key in (0, 1, 2, 2, 0, 1):
        score = scorer.score([CANDIDATES[key]], [key], lambda key: asked.append(key) or REFERENCES[key])
        assert score.tolist() == pytest.approx([expected[key]], abs=1e-12)
    assert asked == [0, 1, 2, 0, 1]
    again = scorer.score(CANDIDATES, range(3), REFERENCES.__getitem__)  # more at once than it keeps
    assert again.tolist() == pytest.approx(expected, abs=1e-12)


def test_every_candidate_needs_references():
    with pytest.raises(ValueError, match="2 candidates and 3 sets of references"):
        cider_d(CANDIDATES[:2], REFERENCES)


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

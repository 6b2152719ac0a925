"""Arrays against the counters of `lrl_core.metrics.ngrams`."""

import random

import numpy as np
import pytest

from lrl_core.metrics.ngram_batch import NgramBatch, NgramTree, Words, _sorted, first_of_runs, number_words, ragged
from lrl_core.metrics.ngrams import ngram_counts


def random_sentences(seed, letters="abc", size=60):
    draw = random.Random(seed)
    return [draw.choices(letters, k=draw.randrange(10)) for _ in range(size)]


@pytest.mark.parametrize("letters", ["a", "ab", "abcdefghij"])
def test_counts_stand_where_an_ngram_occurs_first(letters):
    sentences, n = random_sentences(0, letters), 5
    batch = NgramBatch.of(sentences, n, Words())
    begins = np.cumsum(batch.lengths + 1) - batch.lengths - 1
    for sentence, begin in zip(sentences, begins.tolist(), strict=True):
        for order, expected in enumerate(ngram_counts(sentence, n)):
            row = batch.times[order, begin : begin + len(sentence)].tolist()
            places = {i: tuple(sentence[i : i + order + 1]) for i, times in enumerate(row) if times}
            assert {ngram: row[i] for i, ngram in places.items()} == dict(expected)
            assert all(places[i] not in [places[j] for j in places if j < i] for i in places)


def test_words_are_numbered_as_they_come_and_remembered_on_demand():
    words = Words()
    assert number_words(["a", "b", "a"], words, grow=True).tolist() == [0, 1, 0]
    assert number_words(["c", "b", "d", "c"], words).tolist() == [2, 1, 3, 2]
    assert number_words(["d"], words).tolist() == [2]
    assert words == {"a": 0, "b": 1}


def test_no_sentences_and_empty_ones_are_fine():
    for sentences in ([], [[]], [[], ["a"], []]):
        batch = NgramBatch.of(sentences, 3, Words())
        assert batch.times.sum() == sum(map(len, sentences))
        tree = NgramTree()
        assert [at.size for at, _ in tree.find(batch, np.zeros(len(sentences), np.int64), grow=True)][1:] == [0, 0]


def test_keys_too_large_to_take_their_place_along_are_sorted_all_the_same():
    keys = np.random.default_rng(0).integers(0, 50, 300)
    for factor in (1, 1 << 55):
        order, arranged = _sorted(keys * factor)
        assert order.tolist() == sorted(range(300), key=lambda i: keys[i])  # equal ones as they stand
        assert arranged.tolist() == sorted((keys * factor).tolist())


def test_a_tree_has_one_node_for_each_ngram_under_each_root():
    sentences, n = random_sentences(1), 4
    roots = np.arange(len(sentences)) % 3
    words, tree, known = Words(), NgramTree(), {}
    for part in (slice(0, 20), slice(20, 45)):
        batch = NgramBatch.of(sentences[part], n, words, grow=True)
        for order, (at, nodes) in enumerate(tree.find(batch, roots[part], grow=True)):
            assert at.tolist() == sorted(at.tolist())
            known.update(zip(nodes.tolist(), spelled(sentences[part], roots[part], batch, at, order), strict=True))
    expected = {
        (root, ngram)
        for root, sentence in zip(roots[:45].tolist(), sentences[:45], strict=True)
        for counts in ngram_counts(sentence, n)
        for ngram in counts
    }
    assert len(tree) == len(known) == len(expected)
    assert set(known.values()) == expected
    rest = NgramBatch.of([*sentences[45:], ["z", "a", "a"]], n, words)
    rest_roots = np.append(roots[45:], 0)
    found = {ngram for at, nodes in tree.find(rest, rest_roots) for ngram in (known[node] for node in nodes.tolist())}
    said = {
        (root, ngram)
        for root, sentence in zip(rest_roots.tolist(), [*sentences[45:], ["z", "a", "a"]], strict=True)
        for counts in ngram_counts(sentence, n)
        for ngram in counts
    }
    assert found == said & expected


def spelled(sentences, roots, batch, at, order):
    """Root and words of the n-grams that begin at `at`."""
    flat = [word for sentence in sentences for word in [*sentence, None]]
    return [(int(roots[batch.sentence[i]]), tuple(flat[i : i + order + 1])) for i in at.tolist()]


def test_runs():
    assert first_of_runs(np.array([3, 3, 1, 2, 2, 2])).tolist() == [0, 2, 3]
    assert first_of_runs(np.empty(0, np.int64)).tolist() == []
    which, numbers = ragged(np.array([10, 5, 7]), np.array([2, 1, 3]))
    assert which.tolist() == [0, 0, 1, 2, 2, 2]
    assert [part.size for part in ragged(np.empty(0, np.int64), np.empty(0, np.int64))] == [0, 0]
    assert numbers.tolist() == [10, 11, 5, 7, 8, 9]

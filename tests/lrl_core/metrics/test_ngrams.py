from lrl_core.metrics.ngrams import ngram_counts


def test_counts_every_order():
    unigrams, bigrams, trigrams = ngram_counts(["a", "b", "a", "b"], 3)
    assert unigrams == {("a",): 2, ("b",): 2}
    assert bigrams == {("a", "b"): 2, ("b", "a"): 1}
    assert trigrams == {("a", "b", "a"): 1, ("b", "a", "b"): 1}


def test_token_ids_count_like_words():
    assert ngram_counts([7, 8, 7], 2)[1] == {(7, 8): 1, (8, 7): 1}


def test_a_short_sentence_has_no_long_ngrams():
    assert [len(counts) for counts in ngram_counts(["a"], 4)] == [1, 0, 0, 0]
    assert [len(counts) for counts in ngram_counts([], 2)] == [0, 0]

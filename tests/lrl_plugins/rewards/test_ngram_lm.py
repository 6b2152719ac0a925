import io
import math

import pytest
import torch

from lrl_plugins.rewards.ngram_lm import BEGIN, END, UNKNOWN, NgramModel

TEXTS = [["a", "cat", "sits"], ["a", "dog", "sits"], ["a", "cat"]]
# Unigrams: a 3, cat 2, sits 2, dog 1, end 3: 11 in all; six things can come next, the unknown word with them.


def bigram(**arguments):
    return NgramModel.of(TEXTS, **({"n": 2, "k": 0.5} | arguments))


def test_counts_by_hand():
    unigrams, bigrams = bigram().counts
    assert unigrams == {("a",): 3, ("cat",): 2, ("sits",): 2, ("dog",): 1, (END,): 3}
    assert bigrams == {
        (BEGIN, "a"): 3, ("a", "cat"): 2, ("a", "dog"): 1, ("cat", "sits"): 1, ("cat", END): 1, ("dog", "sits"): 1,
        ("sits", END): 2,
    }  # fmt: skip
    assert bigram().vocabulary == {"a", "cat", "sits", "dog", END, UNKNOWN}


@pytest.mark.parametrize(
    ("word", "before", "expected"),
    [
        ("a", BEGIN, (3 + 0.5) / (3 + 0.5 * 6)),
        ("cat", "a", (2 + 0.5) / (3 + 0.5 * 6)),
        ("a", "dog", 0.5 / (1 + 0.5 * 6)),
        ("cat", UNKNOWN, 0.5 / (0.5 * 6)),  # never seen before anything: all six alike
    ],
)
def test_add_k_by_hand(word, before, expected):
    assert bigram().probability(word, [before]) == pytest.approx(expected)


def test_mixture_by_hand():
    expected = 0.25 * (2 + 0.5) / (11 + 0.5 * 6) + 0.75 * (2 + 0.5) / (3 + 0.5 * 6)
    assert bigram(mixture=[0.25, 0.75]).probability("cat", ["a"]) == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_probabilities_add_up_to_one(n):
    model = NgramModel.of(TEXTS, n, 0.3, [1 / n] * n)
    for before in ([BEGIN, BEGIN], [BEGIN, "a"], ["a", "cat"], ["sits", "dog"], [UNKNOWN, UNKNOWN]):
        assert math.fsum(model.probability(word, before) for word in model.vocabulary) == pytest.approx(1)


def test_a_text_is_the_product_of_its_words_and_its_end():
    model = bigram()
    expected = [math.log(3.5 / 6), math.log(1.5 / 6), math.log(0.5 / 4), math.log(0.5 / 3)]
    assert model.log_probabilities(["a", "dog", "barks"]) == pytest.approx(expected)
    assert model.log_probabilities(["a", "dog", "barks"], ended=False) == pytest.approx(expected[:-1])
    assert model.log_probabilities([]) == pytest.approx([math.log(0.5 / 6)])
    assert model.log_probabilities([], ended=False) == []


def test_rare_words_are_counted_as_unknown():
    model = bigram(least=2)
    assert model.counts[1][("a", UNKNOWN)] == 1
    assert model.log_probabilities(["a", "bird"])[1] == pytest.approx(math.log((1 + 0.5) / (3 + 0.5 * 5)))


def test_counts_survive_a_checkpoint():
    model, saved = bigram(n=3, mixture=[0.2, 0.3, 0.5]), io.BytesIO()
    torch.save(model.pack(), saved)
    saved.seek(0)
    assert NgramModel.unpack(torch.load(saved, weights_only=True)) == model

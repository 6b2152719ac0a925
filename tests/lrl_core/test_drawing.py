"""Drawing and taking the best: the same as by the definition, for any vocabulary size."""

import pytest
import torch

from lrl_core.drawing import draw, largest, take_best


def logits(rows, vocabulary, seed=0):
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@pytest.mark.parametrize("vocabulary", [1, 5, 127, 128, 129, 256, 1000])
def test_the_token_is_the_first_whose_cumulative_probability_is_above_the_number(vocabulary):
    scaled = logits(200, vocabulary)
    scaled[:, vocabulary // 2 + 1 :: 3] = -torch.inf
    uniform = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    probability = scaled.softmax(1)
    expected = (probability.cumsum(1) <= uniform[:, None]).sum(1)
    tokens, logprobs = draw(scaled, uniform)
    assert tokens.tolist() == expected.tolist()
    torch.testing.assert_close(logprobs, scaled.log_softmax(1).gather(1, tokens[:, None])[:, 0])


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_ends_of_the_interval_never_draw_what_is_impossible(number):
    scaled = logits(50, 300).float()
    scaled[:, :140] = scaled[:, 150:] = -torch.inf
    tokens, logprobs = draw(scaled, torch.full((50,), number))
    assert bool(((tokens >= 140) & (tokens < 150)).all())
    assert bool(logprobs.isfinite().all())


def test_frequencies_are_the_probabilities():
    torch.manual_seed(3)
    scaled = logits(1, 150, seed=4).float()
    tokens, _ = draw(scaled.expand(40_000, -1))
    frequency = torch.bincount(tokens, minlength=150) / 40_000
    assert float((frequency - scaled[0].softmax(0)).abs().sum()) < 0.05


def test_draws_are_made_in_the_precision_of_the_logits():
    tokens, logprobs = draw(logits(3, 7))
    assert tokens.dtype == torch.long
    assert logprobs.dtype == torch.float64


@pytest.mark.parametrize("vocabulary", [1, 5, 127, 128, 129, 300])
def test_the_take_best_is_the_first_largest(vocabulary):
    scaled = logits(100, vocabulary).round()  # many ties
    scaled[:, ::2] = -torch.inf if vocabulary > 1 else 0.0
    largest = scaled == scaled.amax(1, keepdim=True)
    tokens, logprobs = take_best(scaled)
    assert tokens.tolist() == largest.int().argmax(1).tolist()
    torch.testing.assert_close(logprobs, scaled.log_softmax(1).amax(1))


@pytest.mark.parametrize("vocabulary", [9, 300, 1000, 2049])
def test_the_largest_are_those_of_a_whole_sort(vocabulary):
    scaled = logits(60, vocabulary)
    scaled[:, 1::7] = -torch.inf
    values, places = largest(scaled, 5)
    expected = scaled.sort(1, descending=True)
    torch.testing.assert_close(values, expected.values[:, :5])
    assert places.tolist() == expected.indices[:, :5].tolist()

"""The chunked scores against plain autograd over the whole [N, V] table."""

import pytest
import torch

from lrl_core import vocab
from lrl_core.sampling import Bans, Sampling
from lrl_core.vocab import Head, expected_value, over_vocabulary, score_vocabulary

N, D, V, EOS = 7, 5, 11, 3

SAMPLINGS = {
    "plain": Sampling(),
    "temperature": Sampling(temperature=0.7),
    "top_k": Sampling(top_k=4),
    "top_p": Sampling(top_p=0.8, temperature=1.3),
    "min_p": Sampling(min_p=0.3),
    "banned": Sampling(banned=(0, 2), min_length=4, eos=EOS),
    "limit": Sampling(limit=6, eos=EOS),
    "repeats": Sampling(temperature=0.8, top_k=5, no_repeat_ngram=2),
    "repeats-alone": Sampling(banned=(10,), no_repeat_ngram=1, eos=EOS),
}
REPEATS = Bans(torch.tensor([0, 0, 2, 5, 5, 6]), torch.tensor([2, 3, 1, 0, 0, 10]))
"""Pairs of a row and a token, one of them twice, over three chunks."""


def repeats_of(sampling):
    return REPEATS if sampling.no_repeat_ngram else None


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(vocab, "CHUNK_ELEMENTS", 3 * V)


def problem():
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(N, D, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(V, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([1, 4, 5, 6, 7, 8, 9])
    return hidden, weight, bias, tokens, torch.arange(N)


def naive(hidden, weight, bias, tokens, position, sampling):
    scaled = sampling.scale(hidden @ weight.t() + bias, position, repeats_of(sampling))
    full = scaled.log_softmax(1)
    kept = sampling.keep(scaled.detach())
    kept[torch.arange(N), tokens] = True
    truncated = scaled.masked_fill(~kept, -torch.inf).log_softmax(1)
    entropy = -(full.exp() * full.clamp(min=-1e9)).sum(1)
    return (
        truncated.gather(1, tokens[:, None]).squeeze(1),
        entropy,
        full[:, EOS],
        scaled.logsumexp(1),
    )


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("field", range(4), ids=["logprobs", "entropy", "log_stop", "log_z"])
def test_values_and_gradients_equal_the_naive_ones(name, field):
    hidden, weight, bias, tokens, position = problem()
    sampling = SAMPLINGS[name]
    expected = naive(hidden, weight, bias, tokens, position, sampling)[field]
    got = score_vocabulary(hidden, Head(weight, bias), tokens, position, sampling, EOS, repeats_of(sampling))[field]
    assert torch.allclose(got, expected, atol=1e-10)
    finite = expected.isfinite()
    leaves = (hidden, weight, bias)
    slopes = torch.linspace(-1, 2, N, dtype=torch.float64)[finite]
    wanted = torch.autograd.grad((expected[finite] * slopes).sum(), leaves)
    for a, b in zip(torch.autograd.grad((got[finite] * slopes).sum(), leaves), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_one_pass_serves_several_readers():
    hidden, weight, bias, tokens, position = problem()
    sampling = SAMPLINGS["top_p"]
    leaves = (hidden, weight, bias)
    a = naive(hidden, weight, bias, tokens, position, sampling)
    b = score_vocabulary(hidden, Head(weight, bias), tokens, position, sampling, EOS)
    loss = [(x[0] * 2 + x[1] - 0.5 * x[2] + x[3]).sum() for x in (a, b)]
    for x, y in zip(torch.autograd.grad(loss[0], leaves), torch.autograd.grad(loss[1], leaves), strict=True):
        assert torch.allclose(x, y, atol=1e-9)


def test_over_vocabulary_sees_all_actions_in_chunks():
    hidden, weight, bias, _, position = problem()
    sampling = Sampling(temperature=0.5)
    seen = []

    def expected_square(logprobs):
        seen.append(len(logprobs))
        return (logprobs.exp() * logprobs**2).sum(-1)

    got = over_vocabulary(expected_square, hidden, Head(weight, bias), position, sampling)
    whole = expected_square(((hidden @ weight.t() + bias) / 0.5).log_softmax(1))
    assert torch.allclose(got, whole)
    assert max(seen[:-1]) == 3
    for x, y in zip(
        torch.autograd.grad(got.sum(), (hidden, weight)),
        torch.autograd.grad(whole.sum(), (hidden, weight)),
        strict=True,
    ):
        assert torch.allclose(x, y, atol=1e-9)


def test_over_vocabulary_knows_what_may_not_be_repeated():
    hidden, weight, bias, _, position = problem()
    sampling = SAMPLINGS["repeats"]
    got = over_vocabulary(lambda lp: lp.exp()[:, 2], hidden, Head(weight, bias), position, sampling, REPEATS)
    logits = ((hidden @ weight.t() + bias) / 0.8).detach()
    for row, token in [(0, 2), (0, 3), (2, 1), (5, 0), (6, 10)]:
        logits[row, token] = -torch.inf
    assert torch.allclose(got, logits.softmax(1)[:, 2])
    assert got[0] == 0


@pytest.mark.parametrize("name", ["plain", "temperature", "banned", "top_p", "repeats"])
def test_expected_values_are_means_over_all_actions(name):
    """Bans and temperature count, truncation does not; the critic gets no gradient."""
    hidden, weight, bias, _, position = problem()
    generator = torch.Generator().manual_seed(5)
    worth = torch.randn(N, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(V, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    sampling, bans = SAMPLINGS[name], repeats_of(SAMPLINGS[name])
    got = expected_value(hidden, Head(weight, bias), worth, Head(matrix, None), position, sampling, bans)
    values = (worth @ matrix.t()).detach()
    chances = sampling.scale(hidden @ weight.t() + bias, position, bans).softmax(1)
    whole = (chances * values).sum(1)
    assert torch.allclose(got, whole)
    expected = torch.autograd.grad(whole.sum(), (hidden, weight))
    for x, y in zip(torch.autograd.grad(got.sum(), (hidden, weight)), expected, strict=True):
        assert torch.allclose(x, y, atol=1e-9)
    got = expected_value(hidden, Head(weight, bias), worth, Head(matrix, None), position, sampling, bans)
    got.sum().backward()
    assert worth.grad is None
    assert matrix.grad is None


def test_no_tokens_at_all():
    _, weight, bias, _, _ = problem()
    empty = torch.zeros(0, D, dtype=torch.float64)
    nothing = torch.zeros(0, dtype=torch.long)
    scores = score_vocabulary(empty, Head(weight, bias), nothing, nothing, Sampling(), EOS)
    assert all(x.shape == (0,) for x in scores)


def test_rollout_and_loss_agree_under_autocast():
    hidden, weight, bias, *_ = (x.detach().float() if x.is_floating_point() else x for x in problem())
    head = Head(weight, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            torch.equal(head.logits(hidden), hidden @ weight.t() + bias) or head.logits(hidden).dtype == torch.float32
        )


def test_without_the_entropy_the_rest_is_the_same():
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 4, dtype=torch.float64), torch.randn(11, 4, dtype=torch.float64)
    tokens, position = torch.arange(7), torch.arange(7)
    sampling = Sampling(temperature=0.7, top_k=5, banned=(8,), min_length=3, eos=2)
    asked = (hidden, Head(weight, None), tokens, position, sampling, 2)
    whole, part = vocab.score_vocabulary(*asked), vocab.score_vocabulary(*asked, entropy=False)
    for name in ("logprobs", "log_stop", "log_z"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name))
    assert part.entropy.isnan().all()

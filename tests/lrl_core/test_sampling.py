import pytest
import torch

from lrl_core.sampling import Bans, Sampling

PROBABILITIES = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
START = torch.zeros(1, dtype=torch.long)


def kept(**options):
    sampling = Sampling(**options)
    return sampling.keep(sampling.scale(PROBABILITIES.log(), START))[0].tolist()


@pytest.mark.parametrize(("top_p", "expected"), [(0.4, 1), (0.79, 2), (0.81, 3), (1.0, 4)])
def test_top_p_keeps_what_has_less_mass_before_it(top_p, expected):
    assert kept(top_p=top_p) == [i < expected for i in range(4)]


def test_top_p_marks_the_right_columns_when_they_are_not_sorted():
    sampling = Sampling(top_p=0.79)
    shuffled = PROBABILITIES[:, [3, 0, 2, 1]].log()
    assert sampling.keep(sampling.scale(shuffled, START))[0].tolist() == [False, True, False, True]


def test_top_k_keeps_ties_with_the_last():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0]])
    sampling = Sampling(top_k=2)
    assert sampling.keep(sampling.scale(logits, START))[0].tolist() == [False, True, True, True]


def test_top_p_counts_within_what_top_k_left():
    # of .5 and .3, renormalised .625 and .375: the second has .625 before it
    assert kept(top_k=2, top_p=0.6) == [True, False, False, False]
    assert kept(top_k=2, top_p=0.63) == [True, True, False, False]


def test_min_p_is_relative_to_the_best():
    assert kept(min_p=0.29) == [True, True, True, False]
    assert kept(min_p=0.31) == [True, True, False, False]


def test_bans_and_temperature():
    scaled = Sampling(temperature=2.0, banned=(0,)).scale(torch.tensor([[4.0, 2.0]]), START)
    assert scaled.tolist() == [[-torch.inf, 1.0]]


def test_min_length_counts_the_end_token():
    sampling = Sampling(min_length=3, eos=1)
    logits = torch.zeros(3, 2)
    scaled = sampling.scale(logits, torch.tensor([0, 1, 2]))
    assert scaled[:, 1].tolist() == [-torch.inf, -torch.inf, 0.0]


@pytest.mark.parametrize(
    ("option", "value"), [("temperature", 0), ("top_k", -1), ("top_p", 0), ("top_p", 1.1), ("min_p", 2)]
)
def test_refuses_numbers_out_of_range(option, value):
    with pytest.raises(ValueError, match=f"{option} is {value}"):
        Sampling(**{option: value})


def test_min_length_needs_an_end_token():
    with pytest.raises(ValueError, match="give eos"):
        Sampling(min_length=2)


def pairs(repeats):
    return sorted(set(zip(repeats.row.tolist(), repeats.token.tolist(), strict=True)))


def test_what_may_not_come_next():
    lines = torch.tensor([[5, 6, 7, 5, 6], [1, 1, 1, 1, 1], [1, 2, 3, 4, 5], [2, 9, 9, 2, 9]])
    assert pairs(Sampling(no_repeat_ngram=3).repeated(lines)) == [(0, 7), (1, 1), (3, 9)]
    assert pairs(Sampling(no_repeat_ngram=2).repeated(lines)) == [(0, 7), (1, 1), (3, 2), (3, 9)]
    assert pairs(Sampling(no_repeat_ngram=1).repeated(lines[2:3])) == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]
    assert pairs(Sampling(no_repeat_ngram=2, eos=9).repeated(lines)) == [(0, 7), (1, 1), (3, 2)]
    assert pairs(Sampling(no_repeat_ngram=6).repeated(lines)) == []
    assert Sampling().repeated(lines) is None


def test_places_of_finished_episodes_are_told_what_their_past_forbade():
    tokens = torch.tensor([[1, 2, 1, 2, 3], [4, 4, 4, 0, 0]])
    mask = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]]).bool()  # places 0 1 2 3 of row 0, 4 5 6 of row 1
    repeats = Sampling(no_repeat_ngram=2).bans(tokens, mask.nonzero(as_tuple=True))
    assert pairs(repeats) == [(2, 2), (3, 1), (6, 4)]
    assert repeats.row.tolist() == sorted(repeats.row.tolist())
    assert pairs(repeats.within(slice(3, 8))) == [(0, 1), (3, 4)]


def test_a_ban_that_would_leave_nothing_is_lifted():
    sampling = Sampling(banned=(0,), no_repeat_ngram=1, min_length=9, eos=3)
    every = Bans(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 1]))
    allowed = sampling.allow(torch.zeros(2, 4), torch.tensor([2, 2]), every)
    assert (allowed == 0).tolist() == [[False, True, True, False], [False, False, True, False]]
    assert sampling.allow(allowed, torch.tensor([2, 2]), every).equal(allowed)


def test_the_limit_leaves_only_the_end():
    scaled = Sampling(limit=3, eos=1).scale(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
    assert (scaled == 0).tolist() == [[True] * 3, [True] * 3, [False, True, False]]
    with pytest.raises(ValueError, match="limit forces the end token"):
        Sampling(limit=3, eos=1, banned=(1,))


def test_closed_tokens_are_pairs_of_their_own_beside_repeats():
    closed = torch.tensor([True, False, True])
    pairs_of = Bans.of(closed, (4, 7))
    assert pairs(pairs_of) == [(0, 4), (0, 7), (2, 4), (2, 7)]
    assert pairs(Bans.of(torch.zeros(3).bool(), (4, 7))) == []
    both = pairs_of.beside(Bans(torch.tensor([0, 1]), torch.tensor([5, 6])))
    assert pairs(both) == [(0, 4), (0, 5), (0, 7), (1, 6), (2, 4), (2, 7)]
    assert both.row.tolist() == sorted(both.row.tolist())
    assert pairs_of.beside(None) is pairs_of
    assert pairs(both.within(slice(1, 3))) == [(0, 6), (1, 4), (1, 7)]


def test_places_are_told_what_was_closed_there():
    tokens = torch.tensor([[1, 2, 1], [4, 4, 0]])
    at = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool().nonzero(as_tuple=True)  # places 0 1 of row 0, 2 3 of row 1
    closed = torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()
    assert pairs(Sampling(closes=(9, 8)).bans(tokens, at, closed)) == [(0, 8), (0, 9), (3, 8), (3, 9)]
    assert pairs(Sampling(closes=(9,), no_repeat_ngram=1).bans(tokens, at, closed)) == [
        (0, 9), (1, 1), (1, 2), (3, 4), (3, 9),
    ]  # fmt: skip
    assert Sampling(closes=(9,)).bans(tokens, at) is None
    assert Sampling().bans(tokens, at, closed) is None

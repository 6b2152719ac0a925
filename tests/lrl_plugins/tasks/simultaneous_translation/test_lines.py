import random
from itertools import pairwise

import pytest

from lrl_plugins.tasks.simultaneous_translation.lines import drawn_path, lay_line, stray, wait_k
from lrl_plugins.tasks.simultaneous_translation.path import words_with_delays

READ, EOS = 1, 2
SOURCE, TARGET = ((10,), (11, 12), (13,)), ((20, 21), (22,))


@pytest.mark.parametrize(
    ("k", "sources", "targets", "reads"),
    [
        (1, 5, 5, [1, 2, 3, 4, 5, 5]),
        (3, 5, 5, [3, 4, 5, 5, 5, 5]),
        (5, 5, 5, [5] * 6),
        (9, 5, 2, [5] * 3),
        (2, 3, 4, [2, 3, 3, 3, 3]),
        (1, 6, 2, [1, 2, 3]),  # the end may come before the source is over
        (1, 0, 2, [0, 0, 0]),
        (2, 4, 0, [2]),
    ],
)
def test_wait_k_has_read_min_of_k_plus_t_minus_1_and_all(k, sources, targets, reads):
    assert wait_k(k, sources, targets) == reads


def test_a_stray_reader_goes_on_and_never_too_far():
    seen = set()
    for seed in range(200):
        straight = wait_k(1 + seed % 4, 6, 7)
        path = stray(straight, 6, random.Random(seed))
        assert len(path) == len(straight)
        assert path[0] == straight[0]
        steps = [later - earlier for earlier, later in pairwise(path)]
        assert set(steps) <= {0, 1, 2}
        assert max(path) <= 6
        seen.add(tuple(path))
    assert len(seen) > 50


def test_readers_are_those_of_every_lag_and_of_the_whole_sentence():
    random_ = random.Random(0)
    drawn = [tuple(drawn_path(5, 4, 3, 0.0, random_)) for _ in range(400)]
    assert set(drawn) == {tuple(wait_k(k, 5, 4)) for k in (1, 2, 3, 5)}
    assert all(drawn.count(path) > 60 for path in set(drawn))


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 150, 200)])
def test_some_readers_stray(share, least, most):
    straight = {tuple(wait_k(k, 9, 8)) for k in (1, 2, 3, 9)}
    drawn = [tuple(drawn_path(9, 8, 3, share, random.Random(seed))) for seed in range(200)]
    # a reader of the whole sentence has nowhere to stray to
    assert least * 0.7 <= sum(path not in straight for path in drawn) <= most


def test_one_seed_is_one_reader():
    def paths(seed):
        random_ = random.Random(seed)
        return [drawn_path(8, 8, 4, 0.5, random_) for _ in range(5)]

    assert paths("a") == paths("a")
    assert paths("a") != paths("b")


@pytest.mark.parametrize(
    ("first", "path", "tokens"),
    [
        (1, [1, 2, 3], [20, 21, READ, 22, READ, EOS]),
        (1, [2, 2, 2], [READ, 20, 21, 22, EOS]),  # the third word is never heard
        (0, [1, 3, 3], [READ, 20, 21, READ, READ, 22, EOS]),
        (2, [1, 2, 3], [20, 21, 22, READ, EOS]),  # more was heard at once than this reader waits for
        (9, [3, 3, 3], [20, 21, 22, EOS]),
    ],
)
def test_a_line_has_a_read_before_what_has_to_be_heard(first, path, tokens):
    line = lay_line(SOURCE, TARGET, path, first=first, read=READ, eos=EOS, spoken=False)
    assert line.tokens == tuple(tokens)
    assert line.own == (True,) * len(tokens)


def test_words_that_are_spoken_stand_behind_their_read_and_are_not_learnt():
    line = lay_line(SOURCE, TARGET, [1, 2, 3], first=0, read=READ, eos=EOS, spoken=True)
    assert line.tokens == (READ, 10, 20, 21, READ, 11, 12, 22, READ, 13, EOS)
    assert [token for token, own in zip(line.tokens, line.own, strict=True) if not own] == [10, 11, 12, 13]


def test_nothing_to_hear_and_nothing_to_write():
    assert lay_line((), TARGET, wait_k(2, 0, 2), first=1, read=READ, eos=EOS, spoken=True).tokens == (20, 21, 22, EOS)
    assert lay_line(SOURCE, (), wait_k(2, 3, 0), first=1, read=READ, eos=EOS, spoken=False).tokens == (READ, EOS)


def test_the_delays_of_a_line_are_its_path():
    for seed in range(50):
        path = drawn_path(7, 5, 4, 0.7, random.Random(seed))
        target = [(20 + i,) for i in range(5)]
        line = lay_line([(10,)] * 7, target, path, first=1, read=READ, eos=EOS, spoken=False)
        words, delays = words_with_delays(
            line.tokens, (READ,), 1, 7, lambda ids: " ".join(f"w{i - 20}" for i in ids if i >= 20)
        )
        assert words == ["w0", "w1", "w2", "w3", "w4"]
        assert delays == path[:-1]

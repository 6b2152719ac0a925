"""A tokenizer with a token that takes the last one back, and lines with mistakes."""

import random

import pytest

from lrl_core.backspace import kept
from lrl_core.tokenizer import WordTokenizer
from lrl_plugins.tasks.backspace import WithBackspace, with_mistakes


def words():
    """Ids 4, 5 and 6 are a, b and c; 7 takes back."""
    return WithBackspace(WordTokenizer(["a", "b", "c"]))


def test_it_has_one_more_id_than_the_words():
    tokenizer = words()
    assert (len(tokenizer), tokenizer.backspace) == (8, 7)
    assert (tokenizer.pad, tokenizer.bos, tokenizer.eos) == (0, 1, 2)
    assert tokenizer.never_drawn == (0, 1, 3)
    assert tokenizer.words == (4, 5, 6)


def test_encode_never_gives_it():
    tokenizer = words()
    assert tokenizer.encode("a c <backspace> 7 b") == [4, 6, 3, 3, 5]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ([4, 5, 6, 2], "a b c"),
        ([4, 5, 7, 6, 2], "a c"),
        ([4, 5, 7, 7, 6, 2], "c"),
        ([7, 7, 4, 2], "a"),
        ([4, 7, 2], ""),
        ([4, 5, 7], "a"),
        ([], ""),
    ],
)
def test_decode_does_the_deletions_and_leaves_specials_out(line, text):
    assert words().decode(line) == text


def test_there_is_one_backspace():
    with pytest.raises(ValueError, match="WithBackspace: got a WithBackspace whose id 7 takes tokens back already"):
        WithBackspace(words())


def test_mistakes_are_taken_back_and_not_learnt():
    tokenizer, chance = words(), random.Random(0)
    right = [4, 5, 6, 5, 2]
    seen = set()
    for _ in range(300):
        line, learnt = with_mistakes(right, 0.4, tokenizer.words, 7, chance)
        assert kept(line, 7) == right
        for place, token in enumerate(line):
            if token == 7:
                wrong, following = line[place - 1], line[place + 1]
                assert wrong in tokenizer.words
                assert wrong != following
                assert (learnt[place - 1], learnt[place], learnt[place + 1]) == (False, True, True)
                seen.add((wrong, following))
        assert learnt.count(False) == line.count(7)
    assert seen == {(w, r) for w in (4, 5, 6) for r in (4, 5, 6, 2) if w != r}


def test_the_share_of_mistakes_is_their_chance():
    line, _ = with_mistakes([4] * 20_000, 0.05, (4, 5, 6), 7, random.Random(1))
    assert line.count(7) / 20_000 == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 20_000) ** 0.5)
    assert line.count(5) / line.count(7) == pytest.approx(0.5, abs=0.07)
    assert with_mistakes([4, 5], 0.0, (4, 5), 7, random.Random(0)) == ((4, 5), (True, True))


def test_a_mistake_needs_another_word():
    with pytest.raises(ValueError, match=r"with_mistakes: got 1 words .* expected at least 2"):
        with_mistakes([4], 0.5, (4,), 7, random.Random(0))

"""Words and delays of episodes, of whole words and of word pieces."""

import pytest

from lrl_core.tokenizer import WordTokenizer
from lrl_plugins.tasks.simultaneous_translation.path import actions, words_with_delays

EOS, READ = 0, 1
PIECES = {2: "▁the", 3: "▁Danube", 4: "▁steam", 5: "ship", 6: "▁", 7: "\ufffd", 8: "é", 9: "."}


def spell(tokens):
    """As a sentence-piece model does: ▁ begins a word; special tokens are left out."""
    text = "".join(PIECES.get(token, "") for token in tokens)
    return text.replace("▁", " ").strip()


def path(line, first=1, total=5):
    return words_with_delays(line, (READ,), first, total, spell)


def episode(line):
    """R and W as tokens of whole words."""
    return [READ if action == "R" else 2 + i % 2 for i, action in enumerate(line)]


@pytest.mark.parametrize(
    ("line", "delays"),
    [
        ("RWRRRWW", [2, 5, 5]),  # the first word has been heard before
        ("WRWRWRWRW", [1, 2, 3, 4, 5]),
        ("RRRRWWW", [5, 5, 5]),
        ("RRRRRRRRW", [5]),  # there is nothing left to read
        ("RRR", []),
        ("", []),
    ],
)
def test_a_delay_is_what_had_been_read(line, delays):
    words, found = path(episode(line))
    assert found == delays
    assert len(words) == len(delays)
    assert actions([*episode(line), EOS], (READ,), EOS) == line


def test_nothing_read_before_is_possible_and_a_short_source_is_read_at_once():
    assert path(episode("WRW"), first=0) == (["the", "the"], [0, 1])
    assert path(episode("WRW"), first=3, total=1)[1] == [1, 1]


def test_a_word_is_as_late_as_its_last_piece():
    # the | READ READ steam | READ ship | Danube
    assert path([2, READ, READ, 4, READ, 5, 3]) == (["the", "steamship", "Danube"], [1, 4, 4])
    assert path([4, READ, 5]) == (["steamship"], [2])


def test_tokens_without_a_text_complete_no_word():
    assert path([2, READ, READ, EOS]) == (["the"], [1])
    assert path([2, READ, 6, READ, 3, EOS]) == (["the", "Danube"], [1, 3])


def test_a_text_that_changes_backwards_is_as_late_as_the_change():
    def tidy(tokens):
        return spell(tokens).replace("\ufffd\ufffd", "é")  # two bytes make a letter

    line = [2, 6, 7, READ, 7, READ, 3]
    assert words_with_delays(line, (READ,), 1, 5, tidy) == (["the", "é", "Danube"], [1, 2, 3])
    # A word that is taken back takes its delay with it.
    assert words_with_delays(
        [2, 3, READ, 5], (READ,), 1, 5, lambda tokens: "the" if 5 in tokens else spell(tokens)
    ) == (
        ["the"],
        [1],
    )


def test_several_tokens_may_read():
    assert words_with_delays([1, 9, 1, 2, 9, 3], {1, 9}, 0, 9, spell) == (["the", "Danube"], [3, 4])


def test_a_real_tokenizer_says_no_specials():
    tokenizer = WordTokenizer(["read", "a", "b"])
    read, a, b = tokenizer.encode("read a b")
    line = [a, read, b, tokenizer.eos]
    assert words_with_delays(line, (read,), 1, 2, tokenizer.decode) == (["a", "b"], [1, 2])
    assert actions(line, (read,), tokenizer.eos) == "WRW"


def test_a_token_is_decoded_once_when_it_is_written():
    seen = []
    words_with_delays(episode("RWRRWRW"), (READ,), 1, 9, lambda tokens: seen.append(len(tokens)) or spell(tokens))
    assert seen == [1, 2, 3]

from lrl_core.tokenizer import WordTokenizer
from lrl_plugins.tasks.symbols import WithSymbols

WORDS = WordTokenizer(["a", "dog"])
SYMBOLS = WithSymbols(WORDS, ["<read>", "<hand over>"])


def test_symbols_stand_behind_the_words():
    assert len(SYMBOLS) == len(WORDS) + 2
    assert [SYMBOLS.id("<read>"), SYMBOLS.id("<hand over>")] == [len(WORDS), len(WORDS) + 1]
    assert (SYMBOLS.pad, SYMBOLS.bos, SYMBOLS.eos) == (WORDS.pad, WORDS.bos, WORDS.eos)
    assert SYMBOLS.never_drawn == WORDS.never_drawn  # they can be drawn


def test_text_never_becomes_a_symbol_and_symbols_have_no_text():
    assert SYMBOLS.encode("a dog <read>") == [*WORDS.encode("a dog"), WORDS.unk]
    assert SYMBOLS.encode("<read>") == [WORDS.unk]
    a, dog = WORDS.encode("a dog")
    assert SYMBOLS.decode([a, SYMBOLS.id("<read>"), dog, SYMBOLS.id("<hand over>"), SYMBOLS.eos]) == "a dog"
    assert SYMBOLS.decode([SYMBOLS.id("<read>")]) == ""

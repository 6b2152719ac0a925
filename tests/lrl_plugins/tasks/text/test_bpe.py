import pytest
from transformers import AutoTokenizer

from lrl_core.tokenizer import WordTokenizer
from lrl_plugins.tasks.text.bpe import BytePairTokenizer, text_tokenizer

TEXTS = ["The cat sat on the mat.", "the cats sit; 17 + 25 = 42", "mats and cats\nand hats"] * 5


def trained(vocabulary=120):
    return BytePairTokenizer(TEXTS, vocabulary)


@pytest.mark.parametrize("text", ["The cat sat.", "17 + 25 = 42", "hats; cats", "the cat\nsat", "a"])
def test_text_goes_there_and_back(text):
    tokenizer = trained()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_numbers_are_split_into_digits():
    tokenizer = trained()
    assert [tokenizer.decode([i]) for i in tokenizer.encode("42 - 17")][-2:] == ["1", "7"]
    assert len(tokenizer.encode("4217425")) == 7


def test_a_word_is_the_same_at_the_beginning_and_within():
    tokenizer = trained()
    assert tokenizer.encode("cats") == tokenizer.encode("and cats")[-1:]


def test_special_tokens_do_not_come_out_of_text_and_unknown_letters_do_as_unknown():
    tokenizer = trained()
    assert tokenizer.encode("<eos><pad>") == []
    assert tokenizer.encode("cats Ж")[-1] == tokenizer.unk
    assert tokenizer.decode([tokenizer.bos, *tokenizer.encode("cats"), tokenizer.eos]) == "cats"
    assert tokenizer.never_drawn == (tokenizer.pad, tokenizer.bos, tokenizer.unk)


def test_size_is_a_limit_and_training_repeats_itself():
    small, large = trained(40), trained(50)
    assert (len(small), len(large)) == (40, 50)
    assert small.inner.get_vocab() == trained(40).inner.get_vocab()
    with pytest.raises(ValueError, match=r"BytePairTokenizer: got a vocabulary of 10 ids.*at least 32"):
        trained(10)


def test_saved_and_read_again_as_a_folder(tmp_path):
    tokenizer = trained()
    tokenizer.save(tmp_path)
    assert AutoTokenizer.from_pretrained(str(tmp_path)).eos_token == "<eos>"
    again = text_tokenizer(str(tmp_path), 500, [], 1)
    assert (again.pad, again.bos, again.eos) == (tokenizer.pad, tokenizer.bos, tokenizer.eos)
    for text in ("the cats sit; 17 + 25", "Ж"):
        assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode("The cat sat .")) == "The cat sat ."


def test_words_without_a_vocabulary():
    tokenizer = text_tokenizer(None, None, ["a b", "a"], 2)
    assert isinstance(tokenizer, WordTokenizer)
    assert len(tokenizer) == 5

from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.wording import worded

TOKENIZER = DialogueTokenizer(["Is it red?", "does it have no legs ?", 'Is its "name" long?'])


def test_a_dialogue_there_and_back():
    said = "is it red ? yes does it have no legs ? unknown"
    assert TOKENIZER.decode(TOKENIZER.encode(said)) == said
    assert TOKENIZER.decode(TOKENIZER.encode('Is its "NAME" long?')) == 'is its "name" long ?'


def test_special_ids_and_their_order():
    assert TOKENIZER.words[:8] == ("<pad>", "<bos>", "<eos>", "<unk>", "?", "yes", "no", "unknown")
    assert TOKENIZER.turn_end == 4
    assert TOKENIZER.answers == {"yes": 5, "no": 6, "unknown": 7}
    assert TOKENIZER.words[8:] == tuple(sorted(TOKENIZER.words[8:]))
    assert len(TOKENIZER) == len(set(TOKENIZER.words)) == 8 + 9  # `no` is one word, whoever says it
    assert TOKENIZER.never_drawn == (TOKENIZER.pad, TOKENIZER.bos, TOKENIZER.unk)


def test_strange_words_and_spelt_special_tokens_are_unknown():
    assert TOKENIZER.encode("blue <eos> <pad>") == [TOKENIZER.unk] * 3
    assert TOKENIZER.decode([TOKENIZER.bos, TOKENIZER.encode("red")[0], TOKENIZER.eos, TOKENIZER.pad]) == "red"
    assert TOKENIZER.decode([TOKENIZER.unk]) == "<unk>"


def test_questions_as_they_are_said():
    assert worded(" Is it  RED?") == "is it red ?"
    assert worded("is it red ?") == "is it red ?"
    assert worded("is it red") == "is it red"

from collections import Counter

import pytest

from lrl_plugins.tasks.goal_oriented_questions.dialogues import draw_turns, line_of
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable
from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer

WORLD = AttributeTable()
GAME = WORLD.games("train")[5]  # large blue box
QUESTIONS = WORLD.questions(GAME)
TRUTH = {"is it red ?": "no", "is it large ?": "yes", "is it round ?": "no"}


def truth(question):
    return WORLD.answer(GAME, question, GAME.hidden)


def test_questions_are_different_and_their_answers_true():
    for seed in range(50):
        turns, stopped = draw_turns(QUESTIONS, truth, 3, 0.0, str(seed))
        assert dict(turns) == TRUTH
        assert len(turns) == 3
        assert not stopped


def test_orders_vary_with_the_seed_and_with_nothing_else():
    drawn = [draw_turns(QUESTIONS, truth, 3, 0.0, str(seed))[0] for seed in range(120)]
    assert drawn == [draw_turns(QUESTIONS, truth, 3, 0.0, str(seed))[0] for seed in range(120)]
    assert len(Counter(map(str, drawn))) == 6


def test_there_are_no_more_questions_than_can_be_asked():
    assert len(draw_turns(QUESTIONS, truth, 5, 0.0, "")[0]) == 3
    assert len(draw_turns(QUESTIONS, truth, 2, 0.0, "")[0]) == 2


def test_the_chance_to_stop():
    turns, stopped = draw_turns(QUESTIONS, truth, 3, 1.0, "")
    assert (len(turns), stopped) == (1, True)
    # the game is over after the last answer: nothing is left to stop
    assert draw_turns(QUESTIONS, truth, 1, 1.0, "")[1] is False
    early = [draw_turns(QUESTIONS, truth, 3, 0.5, str(seed))[1] for seed in range(400)]
    assert sum(early) / 400 == pytest.approx(0.75, abs=0.07)


def test_a_dialogue_as_tokens():
    tokenizer = DialogueTokenizer(QUESTIONS)
    line = line_of([("is it red ?", "no"), ("is it large ?", "yes")], True, tokenizer)
    assert tokenizer.decode(line.tokens) == "is it red ? no is it large ? yes"
    assert line.tokens[-1] == tokenizer.eos
    assert [int(own) for own in line.own] == [1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1]
    assert line_of([("is it red ?", "no")], False, tokenizer).tokens[-1] == tokenizer.answers["no"]

import pytest

from lrl_plugins.tasks.goal_oriented_questions.guessing import best, consistent, posterior, success, uncertainty
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable

WORLD = AttributeTable()
GAME = WORLD.games("val")[0]  # the large red ball is hidden


@pytest.mark.parametrize(
    ("turns", "left"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([("is it red ?", "yes")], [0, 1, 2, 3]),
        ([("is it red ?", "no")], [4, 5, 6, 7]),
        ([("is it red ?", "yes"), ("is it round ?", "yes")], [0, 2]),
        ([("is it red ?", "yes"), ("is it red ?", "yes")], [0, 1, 2, 3]),
        ([("is it heavy ?", "unknown")], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([("is it red ?", "yes"), ("is it large ?", "yes"), ("is it round ?", "yes")], [0]),
    ],
)
def test_the_objects_that_all_answers_are_true_of(turns, left):
    assert consistent(WORLD, GAME, turns) == left
    beliefs = posterior(WORLD, GAME, turns)
    assert beliefs == [1 / len(left) if i in left else 0 for i in range(8)]
    assert best(beliefs) == left[0]
    assert success(beliefs, left[-1]) == pytest.approx(1 / len(left))
    assert uncertainty(beliefs) == pytest.approx({8: 3, 4: 2, 2: 1, 1: 0}[len(left)])


def test_an_object_that_is_ruled_out_is_not_guessed():
    assert success(posterior(WORLD, GAME, [("is it red ?", "no")]), GAME.hidden) == 0


def test_contradicting_answers_leave_all_possible():
    turns = [("is it red ?", "yes"), ("is it red ?", "no")]
    assert consistent(WORLD, GAME, turns) == []
    assert posterior(WORLD, GAME, turns) == [1 / 8] * 8


def test_the_most_likely_object_is_guessed_and_ties_are_broken_at_random():
    assert success([0.2, 0.5, 0.3], 1) == 1
    assert success([0.2, 0.5, 0.3], 2) == 0
    assert success([0.4, 0.2, 0.4], 2) == 0.5
    assert uncertainty([0.5, 0.25, 0.25]) == 1.5

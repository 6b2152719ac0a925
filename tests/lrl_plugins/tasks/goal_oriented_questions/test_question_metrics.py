import pytest

from lrl_core.reports import Answer
from lrl_plugins.tasks.goal_oriented_questions.data import GoalOrientedQuestions
from lrl_plugins.tasks.goal_oriented_questions.worlds import ANSWERS

RED, LARGE, ROUND, HEAVY = "is it red ?", "is it large ?", "is it round ?", "is it heavy heavy"


@pytest.fixture
def task():
    made = GoalOrientedQuestions(turns=3, longest_question=4, price_per_turn=0.3)
    made.facts()
    return made


def said(task, name, *lines, stopped=False):
    """The answer of a policy that asked these questions; the oracle's words are what they are."""
    tokens, chosen = [], []
    for line in lines:
        asked = task.tokenizer.encode(line)
        tokens += [*asked, task.tokenizer.answers["yes"]]
        chosen += [True] * len(asked) + [False]
    if stopped:
        tokens, chosen = [*tokens, task.tokenizer.eos], [*chosen, True]
    return Answer(name, "", (), tuple(tokens), tuple(chosen), paid=0.0)


def scores(task, *answers, stage="validate"):
    metric = task.metrics(stage)
    metric.update(list(answers))
    return {name: value.item() for name, value in metric.compute().items()}


def test_numbers_by_hand(task):
    got = scores(
        task,
        said(task, "val-0", RED, LARGE, ROUND),  # found: 1
        said(task, "val-1", RED, RED, ROUND),  # two are left: 1/2
        said(task, "val-2", RED, stopped=True),  # four are left: 1/4
        said(task, "val-3", LARGE, HEAVY, "is it red red"),  # four are left, two questions not understood: 1/4
    )
    assert got == pytest.approx(
        {
            "success": (1 + 0.5 + 0.25 + 0.25) / 4,
            "turns": 10 / 4,
            "success_within_1": 0.25,
            "success_within_2": (0.5 + 0.25 + 0.25 + 0.25) / 4,
            "success_within_3": (1 + 0.5 + 0.25 + 0.25) / 4,
            "repeated_questions": 1 / 4,
            "unknown_answers": 2 / 10,
            "question_vocabulary": 7,  # is it red large round ? <unk>
            "stopped": 1 / 4,
            "finished": 1,
        }
    )


def test_a_game_cut_by_the_limit_has_no_success(task):
    got = scores(task, said(task, "val-0", RED, LARGE), said(task, "val-1", RED, LARGE, ROUND))
    assert got["success"] == 0.5
    assert got["finished"] == 0.5
    assert got["success_within_2"] == 0.5


def test_games_without_questions(task):
    got = scores(task, said(task, "val-0", stopped=True))
    assert got["success"] == got["success_within_3"] == 1 / 8
    assert got["turns"] == got["unknown_answers"] == got["repeated_questions"] == 0
    assert got["stopped"] == 1


def test_the_oracles_words_are_never_taken_for_the_policys(task):
    """A policy that says `yes` itself asks a strange question, and the real answer after it is none of its words."""
    strange = said(task, "val-0", "yes yes ?", RED, "no no no no")
    got = scores(task, strange)
    assert got["turns"] == 3
    assert got["unknown_answers"] == pytest.approx(2 / 3)
    assert got["success"] == 0.25
    assert ANSWERS == ("yes", "no", "unknown")


def test_an_id_counts_once_and_must_be_of_the_split(task):
    one, other = said(task, "val-0", RED, LARGE, ROUND), said(task, "val-0", RED, RED, RED)
    assert scores(task, one, other)["success"] == 1
    with pytest.raises(ValueError, match="QuestionMetrics: got an answer to 'val-0', expected one of the 8 games"):
        scores(task, one, stage="test")


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_reset_forgets(task):
    metric = task.metrics("validate")
    metric.update([said(task, "val-0", RED, LARGE, ROUND)])
    metric.reset()
    assert metric.compute() == {}

import json
from pathlib import Path

import pytest

from lrl_plugins.tasks.goal_oriented_questions.table import built_in, read_table
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
GOOD = {
    "items": ["cat", "Dog"],
    "predicates": [{"key": "a", "question": "Does it bark?"}, {"key": "b", "question": "Is it  small ?"}],
    "answers": ["01", "10"],
}


def written(folder, **changes):
    path = folder / "table.json"
    path.write_text(json.dumps(GOOD | changes))
    return str(path)


def test_a_table_is_read_with_questions_as_they_are_said(tmp_path):
    table = read_table(written(tmp_path))
    assert table.items == ("cat", "Dog")
    assert table.questions == ("does it bark ?", "is it small ?")
    assert table.answers == ("01", "10")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"items": []}, "with no filled list 'items'"),
        ({"answers": None}, "with no filled list 'answers'"),
        ({"items": ["cat", 3]}, "with the item 3, which is no name"),
        ({"items": ["cat", "cat"]}, "with the item 'cat' twice"),
        ({"items": ["cat"], "answers": ["01"]}, "with a single item"),
        ({"predicates": [{"key": "a"}]}, "with no text 'question' in predicate 0"),
        ({"predicates": [{"question": "is it big"}]}, "with the question 'is it big', which does not end with"),
        ({"predicates": [{"question": "big? small?"}]}, "with the question 'big. small.', which does not end with"),
        ({"predicates": [{"question": "Big?"}, {"question": "big ?"}]}, "with the question 'big \\?' twice"),
        ({"answers": ["01"]}, "with 1 answers for 2 items"),
        ({"answers": ["01", "1"]}, "with the answers '1' for 'Dog'; .* Give 2 digits, each 0 or 1"),
        ({"answers": ["01", "1x"]}, "with the answers '1x' for 'Dog'"),
    ],
)
def test_malformed_tables_are_refused_with_the_place_of_the_fault(tmp_path, changes, said):
    with pytest.raises(ValueError, match=rf"AttributeTable: got .*table\.json {said}"):
        read_table(written(tmp_path, **changes))


def test_what_is_no_table_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        read_table(str(tmp_path / "x.json"))
    with pytest.raises(ValueError, match=r"absent\.json, which cannot be read"):
        read_table(str(tmp_path / "absent.json"))
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match="no filled list 'items' and 'predicates' and 'answers'"):
        read_table(str(tmp_path / "x.json"))


def test_the_built_in_table_says_what_its_names_say():
    table = built_in()
    assert len(table.items) == len(set(table.answers)) == 8
    for name, row in zip(table.items, table.answers, strict=True):
        assert row == "".join(str(int(word in name.split())) for word in ("red", "large", "ball"))


def test_answers_are_those_of_the_table_and_other_questions_are_unknown(tmp_path):
    world = AttributeTable(written(tmp_path))
    (game, _) = world.games("train")
    assert [world.answer(game, "does it bark ?", i) for i in (0, 1)] == ["no", "yes"]
    assert world.answers(game, "is it small ?") == ["yes", "no"]
    for strange in ("does it bark", "does it bark ? ?", "bark ?", "", "yes"):
        assert world.answer(game, strange, 0) == "unknown"
        assert world.answers(game, strange) == ["unknown", "unknown"]


def test_every_object_is_hidden_once_and_in_training_as_often_as_asked():
    world = AttributeTable(games=20)
    assert [game.hidden for game in world.games("val")] == list(range(8))
    assert [game.hidden for game in world.games("test")] == list(range(8))
    assert [game.hidden for game in world.games("train")] == [i % 8 for i in range(20)]
    assert len(AttributeTable().games("train")) == 8


def test_some_objects_per_game_are_told_and_hold_the_hidden_one():
    world, again, other = (AttributeTable(objects_per_game=3, seed=seed) for seed in (0, 0, 1))
    whole = AttributeTable()
    assert world.games("train") == again.games("train")
    assert world.games("train") != other.games("train")
    for number, game in enumerate(world.games("val")):
        assert len(set(game.objects)) == 3
        assert game.objects[game.hidden] == whole.table.items[number]
        assert game.told == " , ".join(game.objects)
        truth = world.answers(game, "is it red ?")
        assert truth == ["yes" if "red" in name.split() else "no" for name in game.objects]
        assert truth == [world.answer(game, "is it red ?", i) for i in range(3)]
    assert {game.hidden for game in world.games("val")} == {0, 1, 2}  # its place tells nothing


@pytest.mark.parametrize(("some", "games", "said"), [(1, None, "2 to 8"), (9, None, "2 to 8"), (None, 0, "at least 1")])
def test_wrong_numbers_are_refused(some, games, said):
    with pytest.raises(ValueError, match=f"AttributeTable: got .*expected {said}"):
        AttributeTable(objects_per_game=some, games=games).games("train")


@pytest.mark.parametrize(("name", "size"), [("countries", (250, 100)), ("zoo", (101, 28)), ("awa_animals", (50, 85))])
def test_tables_as_they_are_published(name, size):
    path = SHARED / f"oracle_{name}" / "table.json"
    if not path.is_file():
        pytest.skip(f"the data set oracle_{name} is not here")
    table = read_table(str(path))
    assert (len(table.items), len(table.questions)) == size
    assert max(len(question.split()) for question in table.questions) <= 12
    world, rows = AttributeTable(str(path)), json.loads(path.read_text())
    game, column = world.games("val")[7], len(table.questions) // 2
    asked = rows["predicates"][column]["question"]
    assert world.answer(game, asked, 7) == ("yes" if rows["answers"][7][column] == "1" else "no")

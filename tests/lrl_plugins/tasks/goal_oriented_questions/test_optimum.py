from itertools import combinations, product
from pathlib import Path

import pytest

from lrl_plugins.tasks.goal_oriented_questions import optimum
from lrl_plugins.tasks.goal_oriented_questions.optimum import bound, game_table, halving, main, random_success
from lrl_plugins.tasks.goal_oriented_questions.table import Table, built_in, read_table
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
ALIKE = Table(tuple("abcde"), ("p ?", "q ?", "r ?"), ("000", "000", "100", "110", "111"))  # a and b are twins


@pytest.mark.parametrize(("turns", "success"), [(0, 1 / 8), (1, 2 / 8), (2, 4 / 8), (3, 1.0), (4, 1.0)])
def test_distinct_questions_double_the_success_on_eight_objects(turns, success):
    assert bound(built_in(), turns) == success
    assert halving(built_in(), turns) == success


def test_random_questions_on_eight_objects():
    """With replacement: 1/9 x 2/8 + 6/9 x 4/8 + 2/9 x 8/8 after three."""
    assert random_success(built_in(), 3) == pytest.approx(0.583333, abs=1e-6)
    assert random_success(built_in(), 1) == pytest.approx(0.25)
    assert random_success(built_in(), 0) == pytest.approx(0.125)


def test_random_questions_by_listing_every_conversation():
    asked = list(product(range(3), repeat=4))
    patterns = [len({tuple(row[q] for q in line) for row in ALIKE.answers}) for line in asked]
    assert random_success(ALIKE, 4) == pytest.approx(sum(patterns) / len(asked) / 5, abs=1e-12)


def test_draws_agree_with_the_listing(monkeypatch):
    exact = random_success(ALIKE, 2)
    monkeypatch.setattr(optimum, "ENUMERATED", 0)
    drawn = random_success(ALIKE, 2)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=0.02)
    assert random_success(ALIKE, 2) == drawn


def test_twins_cannot_be_told_apart():
    assert bound(ALIKE, 9) == halving(ALIKE, 9) == 4 / 5
    assert bound(ALIKE, 2) == 4 / 5
    # q first, then p or r: four conversations
    assert halving(ALIKE, 2) == 4 / 5
    assert halving(ALIKE, 1) == bound(ALIKE, 1) == 2 / 5


def best_adaptive(rows, turns):
    """Leaves of the best tree of questions, by trying all of them."""
    if turns == 0 or len(set(rows)) == 1:
        return 1
    best = 1
    for question in range(len(rows[0])):
        yes = [row for row in rows if row[question] == "1"]
        no = [row for row in rows if row[question] == "0"]
        if yes and no:
            best = max(best, best_adaptive(yes, turns - 1) + best_adaptive(no, turns - 1))
    return best


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_optimum_lies_between_halving_and_the_bound(turns):
    rows = tuple("".join("1" if i in pair else "0" for i in range(6)) for pair in combinations(range(6), 2))
    table = Table(tuple(map(str, range(len(rows)))), tuple("abcdef"), rows)
    exact = best_adaptive(rows, turns) / len(rows)
    assert random_success(table, turns) <= halving(table, turns) <= exact <= bound(table, turns)


@pytest.mark.parametrize(
    ("name", "bounds", "halved"),
    [
        ("countries", {5: 0.128, 8: 0.972, 10: 0.972}, {5: 0.128, 8: 0.932, 10: 0.972}),
        ("zoo", {5: 32 / 101, 8: 59 / 101, 10: 59 / 101}, {5: 32 / 101, 8: 59 / 101, 10: 59 / 101}),
        ("awa_animals", {5: 0.64, 8: 1, 10: 1}, {5: 0.64, 8: 1, 10: 1}),
    ],
)
def test_published_tables(name, bounds, halved):
    path = SHARED / f"oracle_{name}" / "table.json"
    if not path.is_file():
        pytest.skip(f"the data set oracle_{name} is not here")
    table = read_table(str(path))
    assert {turns: bound(table, turns) for turns in bounds} == pytest.approx(bounds)
    assert {turns: halving(table, turns) for turns in halved} == pytest.approx(halved)


def test_a_game_is_a_table_too():
    world = AttributeTable(objects_per_game=4)
    game = world.games("val")[0]
    table = game_table(world, game)
    names = dict(zip(built_in().items, built_in().answers, strict=True))
    assert table.answers == tuple(names[name] for name in game.objects)
    assert bound(table, 1) == 0.5


def test_the_program_prints_a_line_per_number_of_questions(tmp_path, capsys):
    path = tmp_path / "t.json"
    path.write_text(
        '{"items": ["a", "b"], "predicates": [{"question": "a?"}, {"question": "b?"}], "answers": ["10", "11"]}'
    )
    main([str(path), "--turns", "1", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 objects, 2 of them different, 2 questions"
    # one question tells them apart, the other does not: 1/2 x 1/2 + 1/2 x 1
    assert lines[2].split() == ["1", "1.0000", "1.0000", "0.7500"]
    assert lines[3].split() == ["2", "1.0000", "1.0000", "0.8750"]

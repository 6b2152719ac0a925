from lrl_plugins.tasks.turns import in_turn

FIVE = ("a", "b", "c", "d", "e")


def test_all_are_seen_before_any_comes_again():
    shown = [text for epoch in range(5) for text in in_turn(FIVE, epoch, 2, "x")]
    assert sorted(shown[:5]) == sorted(shown[5:]) == list(FIVE)


def test_never_more_than_there_are_and_the_first_without_a_count():
    assert sorted(in_turn(FIVE, 3, 9, "x")) == list(FIVE)
    assert in_turn(FIVE, 3, None, "x") == ["a"]


def test_orders_differ_by_seed_and_not_by_call():
    assert len({tuple(in_turn(FIVE, 0, 5, str(seed))) for seed in range(20)}) > 10
    assert in_turn(FIVE, 1, 3, "x") == in_turn(FIVE, 1, 3, "x")

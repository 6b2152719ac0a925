import copy

from lrl_core.metrics.recent import Recent


def test_makes_each_value_once_and_forgets_the_oldest():
    made = []
    recent = Recent(size=2)

    def ask(key):
        return recent.get(key, lambda: made.append(key) or key.upper())

    assert [ask("a"), ask("b"), ask("a")] == ["A", "B", "A"]
    assert made == ["a", "b"]
    ask("c")  # pushes out b: a was asked for later
    ask("a")
    assert made == ["a", "b", "c"]
    ask("b")
    assert made == ["a", "b", "c", "b"]
    assert len(recent) == 2


def test_a_copy_has_a_memory_of_its_own():
    recent = Recent()
    recent.get("a", lambda: 1)
    other = copy.deepcopy(recent)
    other.clear()
    assert recent.get("a", lambda: 2) == 1
    assert other.get("a", lambda: 2) == 2

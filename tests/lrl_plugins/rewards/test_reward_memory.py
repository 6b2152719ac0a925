from lrl_plugins.rewards.memory import Memory


def lengths(made):
    def make(keys):
        made.append(list(keys))
        return [len(key) for key in keys]

    return make


def test_missing_values_are_made_together_and_once():
    memory, made = Memory(10), []
    assert memory.get(["a", "bb", "a"], lengths(made)) == {"a": 1, "bb": 2}
    assert memory.get(["bb", "ccc"], lengths(made)) == {"bb": 2, "ccc": 3}
    assert memory.get(["a"], lengths(made)) == {"a": 1}
    assert made == [["a", "bb"], ["ccc"]]


def test_only_the_last_ones_are_kept():
    memory, made = Memory(2), []
    memory.get(["a", "bb"], lengths(made))
    memory.get(["a"], lengths(made))
    memory.get(["ccc"], lengths(made))  # "bb" was asked for longest ago
    memory.get(["a", "ccc"], lengths(made))
    assert made == [["a", "bb"], ["ccc"]]
    assert len(memory) == 2
    assert memory.get(["x", "yy", "zzz"], lengths(made)) == {"x": 1, "yy": 2, "zzz": 3}  # more than it keeps
    assert len(memory) == 2

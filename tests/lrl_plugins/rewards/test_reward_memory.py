from lrl_plugins.rewards import memory as memory_module
from lrl_plugins.rewards.memory import Memory, memory_of


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


def test_values_may_weigh_differently():
    memory, made = Memory(6, weigh=int), []
    memory.get(["a", "bb", "ccc"], lengths(made))
    assert len(memory) == 3
    memory.get(["dddd"], lengths(made))  # 1 + 2 + 3 + 4: the oldest go until at most 6 are left
    memory.get(["dddd"], lengths(made))
    assert made == [["a", "bb", "ccc"], ["dddd"]]
    assert len(memory) == 1
    memory.get(["a", "eeeeeee"], lengths(made))  # more than it keeps
    assert len(memory) == 0
    memory.get(["a", "bb", "ccc"], lengths(made))  # but nothing is charged for what was forgotten
    assert len(memory) == 3
    memory.clear()
    memory.get(["a", "bb", "ccc"], lengths(made))
    assert len(memory) == 3


def test_a_number_of_values_or_as_many_as_fit(monkeypatch):
    monkeypatch.setattr(memory_module, "BYTES", 4)
    for count, kept in ((3, 3), (None, 2), (0, 0)):
        memory = memory_of(count, len)
        memory.get(["a", "bb", "cc"], lambda keys: keys)
        assert len(memory) == kept

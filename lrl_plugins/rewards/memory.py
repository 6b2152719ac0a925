"""A bounded memory for what is computed of references many at a time."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
BYTES = 2**30
"""What a memory takes whose number of values is left open."""


class Memory(Generic[Key, Value]):
    """Remembers the values of the keys that were asked for last; those that are missing are made in one go.

    Args:
        size: How much is kept between two calls: that many values, or values that weigh that much together.
        weigh: How much of `size` a value takes, such as its bytes; None counts values.
    """

    def __init__(self, size: int, weigh: Callable[[Value], int] | None = None) -> None:
        self.size = size
        self._weigh = weigh
        self._taken = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, keys: Iterable[Key], make: Callable[[list[Key]], Sequence[Value]]) -> dict[Key, Value]:
        """The value of every key.

        Args:
            keys: What is asked for; repeats are made once.
            make: Gives the values of keys that are not remembered, in their order.
        """
        wanted = list(dict.fromkeys(keys))
        missing = [key for key in wanted if key not in self._values]
        self._values.update(zip(missing, make(missing) if missing else (), strict=True))
        self._taken += sum(map(self._weight, (self._values[key] for key in missing)))
        found = {key: self._values[key] for key in wanted}
        for key in wanted:
            self._values.move_to_end(key)
        while self._taken > self.size:
            self._taken -= self._weight(self._values.popitem(last=False)[1])
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._taken = 0

    def _weight(self, value: Value) -> int:
        return 1 if self._weigh is None else self._weigh(value)


def memory_of(count: int | None, weigh: Callable[[Value], int]) -> Memory[Key, Value]:
    """A memory of so many values; None makes one of as many as `BYTES` hold.

    Args:
        count: How many values are kept.
        weigh: How many bytes a value takes.
    """
    return Memory(BYTES, weigh) if count is None else Memory(count)

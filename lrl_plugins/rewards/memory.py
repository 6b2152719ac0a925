"""A bounded memory for what is computed of references many at a time."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Memory(Generic[Key, Value]):
    """Remembers the values of the keys that were asked for last; those that are missing are made in one go.

    Args:
        size: How many values are kept between two calls.
    """

    def __init__(self, size: int) -> None:
        self.size = size
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
        found = {key: self._values[key] for key in wanted}
        for key in wanted:
            self._values.move_to_end(key)
        while len(self._values) > self.size:
            self._values.popitem(last=False)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()

"""On-policy learning: one batch of fresh episodes, used once."""

from collections.abc import Callable, Iterator

from lrl_core.interfaces import Collect, Replay
from lrl_core.types import Experience


class Fresh(Replay):
    """Draws new episodes each step and learns from them once."""

    def batches(self, collect: Collect, expert: Callable[[], Experience]) -> Iterator[Experience]:
        yield collect()

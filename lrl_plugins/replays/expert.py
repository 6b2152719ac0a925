"""Learning from the human answers alone."""

from collections.abc import Callable, Iterator

from lrl_core.interfaces import Collect, Replay
from lrl_core.types import Experience


class Expert(Replay):
    """Gives the human answers; nothing is sampled."""

    samples = False

    def batches(self, collect: Collect, expert: Callable[[], Experience]) -> Iterator[Experience]:
        yield expert()

"""Where the time and the memory of a training step go."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.profiler import record_function

LABEL = "lrl/"
"""What the names of phases begin with in a profiler's trace."""


class Clock:
    """Adds up the seconds of the phases of one training step; phases may stand within each other.

    A GPU works behind the program's back: where a phase ends, part of its work may be waiting still, and its time is
    counted in the phase that waits for it. `exact` waits at both ends of each phase, which slows the step down.
    """

    def __init__(self) -> None:
        self.exact = False
        self.seconds: dict[str, float] = {}  # of each phase, those within it included
        self.own: dict[str, float] = {}  # of each phase without those within it: these add up to the outermost phase
        self._within: list[float] = []

    def restart(self) -> None:
        """Begin a step."""
        self.seconds, self.own = {}, {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside as this phase; nothing is counted where it raises."""
        self._wait()
        start = time.perf_counter()
        self._within.append(0.0)
        try:
            with record_function(LABEL + name) if self.exact else nullcontext():
                yield
            self._wait()
        finally:
            passed, within = time.perf_counter() - start, self._within.pop()
        self.seconds[name] = self.seconds.get(name, 0.0) + passed
        self.own[name] = self.own.get(name, 0.0) + passed - within
        if self._within:
            self._within[-1] += passed

    def _wait(self) -> None:
        if self.exact and torch.cuda.is_initialized():
            torch.cuda.synchronize()


def peak_memory(device: torch.device) -> float | None:
    """The most memory that was in use so far, in MiB: on a GPU its tensors, else the process; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)

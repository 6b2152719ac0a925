"""Scorers that are Java programs: started when first needed, kept alive, gone when Python ends."""

import contextlib
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn


class JavaError(RuntimeError):
    """A Java program died, did not answer in time or answered nonsense."""


def require_java(who: str, java: str) -> None:
    """Raise ValueError unless there is a Java runtime.

    Args:
        who: The reward that needs it.
        java: Name or path of the program.
    """
    if shutil.which(java) is None:
        raise ValueError(
            f"{who}: there is no program {java!r} on the PATH; expected a Java runtime, for {who} is a Java program. "
            "Install one (version 8 or later), or name its path: java."
        )


def tail(errors: IO[bytes], lines: int = 5) -> str:
    """The end of what a program said on its error stream; "(nothing)" where it said nothing.

    Args:
        errors: The file that took the stream.
        lines: How many of its last lines.
    """
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines()
    return " | ".join(said[-lines:]) or "(nothing)"


class Conversation:
    """A program that answers lines on its standard input with lines on its standard output.

    It is started by the first line and kept alive; it ends with this object or with Python, or is started anew after
    it failed. Copies and pickles know how to start a program of their own: no process is in them.

    Args:
        who: The reward that asks, for error messages.
        command: The program and its arguments.
        folder: Where it runs.
        time_limit: Seconds to wait for a line.
    """

    def __init__(self, who: str, command: Sequence[str], folder: Path, time_limit: float) -> None:
        self.who, self.command, self.folder, self.time_limit = who, tuple(command), folder, time_limit
        self._running: _Running | None = None
        self.lock = threading.RLock()
        """Hold it around lines that belong together."""

    def say(self, line: str) -> None:
        """Send one line."""
        running = self._started()
        try:
            running.stdin.write(line.encode() + b"\n")
            running.stdin.flush()
        except OSError:
            self._fail("is gone")

    def hear(self) -> str:
        """The next line of the answer; JavaError, and the end of the program, where there is none."""
        running = self._started()
        try:
            line = running.lines.get(timeout=self.time_limit)
        except queue.Empty:
            self._fail(f"did not answer within {self.time_limit:g} seconds")
        if line is None:
            self._fail("ended")
        return line.decode(errors="replace").strip()

    def close(self) -> None:
        """End the program, if it runs; the next line starts it anew."""
        if self._running is not None:
            self._running.end()
            self._running = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_running": None, "lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = threading.RLock()

    def _started(self) -> "_Running":
        # A forked process has the parent's handle, but not its program.
        if self._running is None or self._running.owner != os.getpid():
            self._running = _Running.start(self, self.command, self.folder)
        return self._running

    def _fail(self, how: str) -> NoReturn:
        said = tail(self._running.errors) if self._running is not None else ""
        self.close()
        raise JavaError(f"{self.who}'s Java program {how}; expected an answer. Its last words: {said}")


@dataclass
class _Running:
    """A program that has been started."""

    stdin: IO[bytes]
    lines: "queue.Queue[bytes | None]"
    """Its answers; None at their end."""
    errors: IO[bytes]
    owner: int
    """The process that started it."""
    end: weakref.finalize

    @classmethod
    def start(cls, keeper: Conversation, command: Sequence[str], folder: Path) -> "_Running":
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the program)
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None and process.stdout is not None
        lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_listen, args=(process.stdout, lines), daemon=True).start()
        end = weakref.finalize(keeper, _end, process, errors, os.getpid())
        return cls(process.stdin, lines, errors, os.getpid(), end)


def _listen(stdout: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    with stdout:
        for line in stdout:
            lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen, errors: IO[bytes], owner: int) -> None:
    if owner != os.getpid():
        return  # a fork does not end what its parent still uses
    process.kill()
    process.wait()
    errors.close()
    with contextlib.suppress(OSError):  # what was not yet read
        assert process.stdin is not None
        process.stdin.close()


class Scratch:
    """A folder that is made when first asked for and removed with this object; copies make one of their own."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory | None = None

    def path(self) -> Path:
        """The folder."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lrl-")
        return Path(self._folder.name)

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": None}

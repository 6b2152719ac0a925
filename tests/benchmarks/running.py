"""Processes of their own, for the benchmarks of this folder: commands of lrl, and scripts that say a result."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_RESULT = "RESULT "


def lrl(*arguments: str) -> None:
    """Run a command of lrl with one thread; SystemExit with its last words if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lrl_core.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")


def say(result: Mapping[str, Any]) -> None:
    """Tell the process that asked what was measured."""
    print(_RESULT + json.dumps(dict(result)), flush=True)


def ask(*arguments: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run this very script once more, in a process of its own; what it says.

    Args:
        arguments: Options that follow those of this process.
        environment: Variables on top of this process'.
    """
    command: Sequence[str] = [sys.executable, *sys.argv, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    results = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode != 0 or not results:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
    return json.loads(results[-1].removeprefix(_RESULT))

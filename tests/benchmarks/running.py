"""Commands of lrl in processes of their own, for the benchmarks of this folder."""

import os
import subprocess
import sys


def lrl(*arguments: str) -> None:
    """Run a command of lrl with one thread; SystemExit with its last words if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lrl_core.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")

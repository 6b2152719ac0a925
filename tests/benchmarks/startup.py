"""How long the command line takes to answer, beside TRL's: a table in Markdown.

    python tests/benchmarks/startup.py --peer trl

Every command is a process of its own, rounds take turns, and what counts is the wall clock of the whole process. Both
sides find their byte code: the first round, which writes it, is thrown away. `python -c pass` is the floor, Python's
own start in the environment that lrl is installed in.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

OURS = (["--help"], ["--version"], ["plugins"], ["recipes"])


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall clock of one run; SystemExit if it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    passed = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return passed


def peer(command: str) -> list[str]:
    """TRL's own help; SystemExit where it is not installed."""
    found = shutil.which(command)
    if found is None:
        raise SystemExit(f"--peer: there is no command {command!r}; install it (pip install trl) or give its path.")
    return [found, "grpo", "--help"]


def main() -> None:
    """Time and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default="trl", help="The peer's command, or where it is.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    script = str(Path(sys.executable).with_name("lrl"))
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "trl grpo --help": peer(arguments.peer)}
    commands |= {f"lrl {' '.join(options)}": [script, *options] for options in OURS}
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    rounds = [{name: seconds(command, environment) for name, command in commands.items()}]
    rounds = [
        {name: seconds(command, environment) for name, command in commands.items()} for _ in range(arguments.rounds + 1)
    ][1:]
    medians = {name: statistics.median(one[name] for one in rounds) for name in commands}
    print("| command | seconds, median | times faster than trl grpo --help |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| `{name}` | {median:.3f} | {medians['trl grpo --help'] / median:.0f} |")


if __name__ == "__main__":
    main()

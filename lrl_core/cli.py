"""The command line: `lrl <command>`. Nothing heavy is imported until a command needs it."""

import os
import sys
from collections.abc import Callable

from lrl_core.commands import CommandError
from lrl_core.errors import PluginError, suggest

_HELP = """usage: lrl <command> [options]

Reinforcement learning for language generation: every part of the training step is a plugin chosen by name.

train and evaluate (lrl <command> --help shows every option)
  fit          Train by a recipe:            lrl fit --config captioning/quickstart
  validate     Measure on validation data:   lrl validate --config ... --ckpt_path ...
  test         Measure on test data:         lrl test --config ... --ckpt_path ...
  predict      Write answers:                lrl predict --config ... --ckpt_path ...

look around
  plugins      List the installed plugins, where they come from and what is broken.
  recipes      List the shipped recipes; copy one to change it.
  score        Apply a reward to texts in a file, without any training.
  transcripts  Read what was said in a run: lrl transcripts predictions.jsonl
  label        Say which answers are best, on a page: lrl label --run runs/...
  new          Start a package with a plugin of your own: lrl new reward Brevity

options
  -h, --help   Show this text.
  --version    Show the version.

What a plugin takes:   lrl fit --model.reward.help CIDErD
Errors are short; LRL_TRACEBACK=1 shows where they come from."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the result is the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _dispatch(arguments)
    except (CommandError, PluginError) as error:
        if os.environ.get("LRL_TRACEBACK", "0") not in ("", "0"):
            raise
        print(f"lrl: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `lrl plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP)
        return 0
    if arguments[0] == "--version":
        from lrl_core import installed

        print(f"lrl {installed.version('lrl')}")
        return 0
    command = _COMMANDS.get(arguments[0])
    if command is None:
        raise CommandError(
            f"There is no command {arguments[0]!r}. {suggest(arguments[0], _COMMANDS)}"
            f"The command comes first: lrl <command> [options]. Commands: {', '.join(_COMMANDS)}."
        )
    return command(arguments)


def _train(arguments: list[str]) -> int:
    # Before torch is imported: threads that spin while they wait are many times slower on a machine that is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from lrl_core.commands import train

    return train.main(arguments)


def _plugins(arguments: list[str]) -> int:
    from lrl_core.commands import plugins

    return plugins.main(arguments[1:])


def _recipes(arguments: list[str]) -> int:
    from lrl_core.commands import recipes

    return recipes.main(arguments[1:])


def _score(arguments: list[str]) -> int:
    from lrl_core.commands import score

    return score.main(arguments[1:])


def _transcripts(arguments: list[str]) -> int:
    from lrl_core.commands import transcripts

    return transcripts.main(arguments[1:])


def _label(arguments: list[str]) -> int:
    from lrl_core.commands import label

    return label.main(arguments[1:])


def _new(arguments: list[str]) -> int:
    from lrl_core.commands import new

    return new.main(arguments[1:])


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "fit": _train,
    "validate": _train,
    "test": _train,
    "predict": _train,
    "plugins": _plugins,
    "recipes": _recipes,
    "score": _score,
    "transcripts": _transcripts,
    "label": _label,
    "new": _new,
}

if __name__ == "__main__":
    sys.exit(main())

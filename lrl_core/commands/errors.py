"""Makes jsonargparse's errors readable: what a component said about itself, without the layers around it."""

import re

_KEY = re.compile(r'^Parser key "([\w.]+)"')


def building(error: BaseException) -> str:
    """What went wrong while the parts of a recipe were built."""
    cause = _origin(error)
    kind = "" if isinstance(cause, (ValueError, RuntimeError)) else f"{type(cause).__name__}: "
    return f"{kind}{cause}"


def parsing(error: BaseException, command: str) -> str:
    """What is wrong with the options or the recipe: the place, the innermost reason, and where help is.

    Args:
        error: What the parser raised.
        command: `lrl fit` or another one.
    """
    text, reason = str(error).strip(), str(_origin(error)).strip()
    said = text if reason in text and "\n" not in text else f"{text.partition(chr(10))[0].strip()} {reason}"
    said = said.replace("Expected a dot import path string:", "There is no class of this name that fits here:")
    key = _KEY.search(said)
    where = f"What this part takes: {command} --{key[1]}.help NAME" if key else f"Every option: {command} --help"
    return f"{said}\n{where}"


def _origin(error: BaseException) -> BaseException:
    """The first error in the chain of causes that jsonargparse itself did not raise; the innermost one otherwise."""
    while error.__cause__ is not None and _raised_in(error).startswith(("jsonargparse", "argparse")):
        error = error.__cause__
    return error


def _raised_in(error: BaseException) -> str:
    """Name of the module whose code raised an error."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", ""))

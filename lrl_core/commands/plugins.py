"""`lrl plugins`: what is installed, from which package, and what is broken and why. Imports none of it."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from lrl_core.commands import layout
from lrl_core.registry import KINDS, Plugin, PluginError, catalogue

if TYPE_CHECKING:
    import argparse


class Row(NamedTuple):
    """What the list says of one plugin."""

    kind: str
    """Singular: reward, decoder, ..."""
    name: str
    """As a recipe writes it."""
    package: str
    """Distribution that brings it."""
    version: str
    """Its version."""
    value: str
    """Where the class is."""
    description: str
    """First line of its docstring."""
    problem: str | None
    """What is broken and why; None where nothing is known to be."""


def main(arguments: list[str]) -> int:
    """List the installed plugins; the exit code is 1 where `--check` finds a broken one."""
    # Without options no parser is built: importing one takes longer than printing the list.
    options = _parser().parse_args(arguments) if arguments else SimpleNamespace(json=False, check=False)
    rows = [_row(plugin, options.check) for plugins in catalogue().values() for plugin in plugins.values()]
    if options.json:
        import json

        print(json.dumps([row._asdict() for row in rows], indent=1, ensure_ascii=False))
    else:
        _show(rows)
    return 1 if options.check and any(row.problem for row in rows) else 0


def _parser() -> "argparse.ArgumentParser":
    import argparse

    parser = argparse.ArgumentParser(
        prog="lrl plugins", description="List the installed plugins. `lrl fit --model.reward.help NAME` explains one."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON for programs.")
    parser.add_argument(
        "--check",
        action="store_true",
        help="Import every plugin: slower, finds what the source alone does not show. Exit code 1 if one is broken.",
    )
    return parser


def _row(plugin: Plugin, check: bool) -> Row:
    problem = plugin.problem
    if check and problem is None:
        problem = _import_problem(plugin)
    return Row(KINDS[plugin.kind], plugin.name, plugin.package, plugin.version, plugin.value, plugin.summary, problem)


def _import_problem(plugin: Plugin) -> str | None:
    try:
        plugin.load()
    except PluginError as error:
        cause = error.__cause__
        return f"{type(cause).__name__}: {cause}" if cause else str(error)
    return None


def _show(rows: list[Row]) -> None:
    table = [("kind", "name", "package", "version", "what it is")]
    for row in rows:
        what = f"BROKEN: {row.problem}" if row.problem else row.description
        table.append((row.kind, row.name, row.package, row.version, what))
    red = {number for number, row in enumerate(rows, 1) if row.problem}
    print(layout.table(table, marked=red))

"""`lrl plugins`: what is installed, from which package, and what is broken and why. Imports none of it."""

import argparse
import json
from dataclasses import dataclass

from lrl_core.registry import KINDS, Plugin, PluginError, catalogue


@dataclass(frozen=True)
class Row:
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
    options = _parser().parse_args(arguments)
    rows = [_row(plugin, options.check) for plugins in catalogue().values() for plugin in plugins.values()]
    if options.json:
        print(json.dumps([vars(row) for row in rows], indent=1, ensure_ascii=False))
    else:
        _show(rows)
    return 1 if options.check and any(row.problem for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in ("kind", "name", "package", "version"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it is")
    for row in rows:
        what = Text(f"BROKEN: {row.problem}", "red") if row.problem else Text(row.description)
        table.add_row(row.kind, Text(row.name), Text(row.package), Text(row.version), what)
    Console().print(table)

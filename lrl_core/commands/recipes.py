"""`lrl recipes`: which recipes are shipped, what they do and how to take one as a start.

A preset is a part of a recipe, a method's `model:` settings alone; it is given after a recipe: `--config A --config B`.
"""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from lrl_core.commands import CommandError, layout
from lrl_core.errors import suggest

if TYPE_CHECKING:
    import argparse

PRESETS = "presets"
"""Folder of the presets among the shipped recipes."""

_FIELDS = ("paper", "result", "command", "time")


class Recipe(NamedTuple):
    """What the first comment lines of a shipped recipe say."""

    name: str
    """`task/method`, as `--config` takes it."""
    summary: str
    """What it does."""
    paper: str = ""
    """Where the method is from."""
    result: str = ""
    """The number it reaches."""
    command: str = ""
    """How to start it."""
    time: str = ""
    """How long it takes."""


def folder() -> Path | None:
    """Where the shipped recipes are installed; None where they are not."""
    spec = importlib.util.find_spec("lrl_recipes")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def shipped() -> dict[str, Path]:
    """Name of every shipped recipe -> its file, sorted."""
    root = folder()
    if root is None:
        return {}
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def resolve(config: str) -> Path:
    """The file that `--config` means: a path, or the name of a shipped recipe with or without `.yaml`."""
    path = Path(config)
    if path.is_file():
        return path
    known = shipped()
    name = config.removesuffix(".yaml")
    if name in known:
        return known[name]
    raise CommandError(
        f"There is neither a file nor a shipped recipe {config!r}. {suggest(name, known)}"
        f"Shipped recipes: {', '.join(known) or 'none'}."
    )


def is_preset(name: str) -> bool:
    """Whether a shipped recipe, by its name, is a part that has to be added to another recipe."""
    return name.startswith(f"{PRESETS}/")


def preset_of(method: str) -> str | None:
    """The preset that bears a method's name, however it is spelt (`DrGRPO`, `dr-grpo`); None where there is none."""
    presets = {_spelling(name.removeprefix(f"{PRESETS}/")): name for name in shipped() if is_preset(name)}
    return presets.get(_spelling(method))


def _spelling(name: str) -> str:
    return "".join(letter for letter in name.lower().replace("+", "plus") if letter.isalnum())


def read(name: str, path: Path) -> Recipe:
    """Read the comment lines at the head of a recipe: a sentence, then `# paper:`, `# result:` and so on."""
    summary: list[str] = []
    facts: dict[str, str] = {}
    target: str | None = None
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("#"):
                break
            text = line.lstrip("#").strip()
            field, colon, value = text.partition(":")
            if colon and field in _FIELDS:
                target = field
                facts[field] = value.strip()
            elif target is None:
                summary.append(text)
            else:
                facts[target] = f"{facts[target]} {text}".strip()
    return Recipe(name, " ".join(summary).strip(), **facts)


def main(arguments: list[str]) -> int:
    """List the shipped recipes, or copy one."""
    # Without options no parser is built: importing one takes longer than printing the list.
    options = _parser().parse_args(arguments) if arguments else SimpleNamespace(json=False, copy=None)
    if options.copy:
        return _copy(*options.copy)
    recipes = [read(name, path) for name, path in shipped().items()]
    if options.json:
        import json

        print(json.dumps([recipe._asdict() for recipe in recipes], indent=1, ensure_ascii=False))
    else:
        _show(recipes)
    return 0


def _parser() -> "argparse.ArgumentParser":
    import argparse

    parser = argparse.ArgumentParser(prog="lrl recipes", description="List the shipped recipes, or copy one.")
    parser.add_argument("--json", action="store_true", help="Print JSON for programs.")
    parser.add_argument(
        "--copy",
        nargs="+",
        metavar=("NAME", "DEST"),
        help="Copy a recipe to DEST (a file or a folder; the current folder by default). Never overwrites.",
    )
    return parser


def _copy(name: str, destination: str = ".", *more: str) -> int:
    if more:
        raise CommandError("lrl recipes: --copy takes the name of a recipe and at most one destination.")
    known = shipped()
    source = known.get(name.removesuffix(".yaml"))
    if source is None:
        raise CommandError(
            f"There is no shipped recipe {name!r}. {suggest(name, known)}Shipped recipes: {', '.join(known) or 'none'}."
        )
    target = Path(destination)
    if target.is_dir() or destination.endswith("/"):
        target = target / source.name
    if target.exists():
        raise CommandError(f"lrl recipes --copy: {target} exists and is never overwritten; name another destination.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    recipe = "RECIPE --config " if is_preset(name) else ""
    print(f"{target}\nRun it: lrl fit --config {recipe}{target}")
    return 0


def _show(recipes: list[Recipe]) -> None:
    if not recipes:
        print("No recipes are installed.")
    for recipe in sorted(recipes, key=lambda recipe: is_preset(recipe.name)):
        facts = [f"{field}: {getattr(recipe, field)}" for field in _FIELDS if getattr(recipe, field)]
        print(layout.bold(recipe.name))
        print(
            "\n".join(line for text in (recipe.summary, *facts) for line in layout.wrapped(text, indent=4)), end="\n\n"
        )

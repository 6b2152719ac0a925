"""`lrl new`: a ready package with one plugin, its test and its entry point."""

import argparse
import keyword
import re
from pathlib import Path
from string import Template

from lrl_core.commands import CommandError
from lrl_core.registry import KINDS, catalogue, suggest

_TEMPLATES = Path(__file__).parent.parent / "templates"
_SINGULAR = {one: kind for kind, one in KINDS.items()}
_PLACES = {"task": "data", "callback": "trainer.callbacks", "environment": "data.environment"}


def main(arguments: list[str]) -> int:
    """Write the package and say what to do next."""
    options = _parser().parse_args(arguments)
    if options.kind not in _SINGULAR:
        raise CommandError(
            f"lrl new: there is no kind {options.kind!r}. {suggest(options.kind, _SINGULAR)}"
            f"Kinds: {', '.join(_SINGULAR)}."
        )
    _check_name(options.name, options.kind)
    folder = create(options.kind, options.name, Path(options.dir))
    _say_next_steps(options.kind, options.name, folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lrl new", description="Start a package with a plugin of your own: lrl new reward Brevity"
    )
    parser.add_argument("kind", help=", ".join(_SINGULAR))
    parser.add_argument("name", help="Class name, in CamelCase; recipes use the same name.")
    parser.add_argument("--dir", default=".", help="Where the package folder is made; the current folder by default.")
    return parser


def _check_name(name: str, kind: str) -> None:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) or keyword.iskeyword(name):
        raise CommandError(f"lrl new: got the name {name!r}; expected a class name in CamelCase, such as ShortAnswers.")
    taken = catalogue()[_SINGULAR[kind]].get(name)
    if taken is not None:
        raise CommandError(
            f"lrl new: the {kind} {name!r} exists already, in package {taken.package} {taken.version}; two packages "
            "cannot offer the same name. Choose another."
        )


def snake(name: str) -> str:
    """short_answers from ShortAnswers; capitals that stand together stay together (CIDErD: cid_er_d)."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def create(kind: str, name: str, where: Path) -> Path:
    """Write the package folder; an existing one is never touched.

    Args:
        kind: Singular, one of KINDS' values.
        name: Class name.
        where: The folder in which the package folder is made.
    """
    module = f"lrl_{snake(name)}"
    package = module.replace("_", "-")
    folder = where / package
    if folder.exists():
        raise CommandError(f"lrl new: {folder} exists and is never overwritten; choose another name or --dir.")
    values = {
        "kind": kind,
        "kinds": _SINGULAR[kind],
        "name": name,
        "module": module,
        "package": package,
        "usage": _usage(kind, name),
        "help": f"--{_PLACES.get(kind, f'model.{kind}')}.help",
    }
    for template, target in _files(kind, module).items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (_TEMPLATES / template).read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(values), encoding="utf-8")
    return folder


def _files(kind: str, module: str) -> dict[str, str]:
    return {
        "package/pyproject.toml.tmpl": "pyproject.toml",
        "package/README.md.tmpl": "README.md",
        "package/init.py.tmpl": f"src/{module}/__init__.py",
        f"{kind}/module.py.tmpl": f"src/{module}/{kind}.py",
        f"{kind}/test.py.tmpl": f"tests/test_{module}.py",
    }


def _usage(kind: str, name: str) -> str:
    if kind == "task":
        return f"data:\n  class_path: {name}"
    if kind == "callback":
        return f"trainer:\n  callbacks:\n    - class_path: {name}"
    if kind == "environment":
        return f"data:\n  init_args:\n    environment:  # of a task that takes one\n      class_path: {name}"
    return f"model:\n  {kind}:\n    class_path: {name}"


def _say_next_steps(kind: str, name: str, folder: Path) -> None:
    print(
        f"Made {folder}/ with the {kind} {name}. Next:\n"
        f"  pip install -e {folder}\n"
        f"  lrl plugins\n"
        f"  python -m pytest {folder}/tests\n"
        f"then change {folder}/src/{folder.name.replace('-', '_')}/{kind}.py and name it in a recipe:\n\n"
        f"{_usage(kind, name)}"
    )

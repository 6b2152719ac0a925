"""What the package promises of itself."""

import ast
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted(path for top in ("lrl_core", "lrl_plugins") for path in (ROOT / top).rglob("*.py"))


def test_every_package_is_installed():
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in SOURCES if path.name == "__init__.py"
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"lrl_recipes"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_functions_fit_on_a_screen(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    long = {f.name: f.end_lineno - f.body[0].lineno for f in functions if f.end_lineno - f.body[0].lineno > 60}
    assert not long
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.parametrize("kind", PROJECT["project"]["entry-points"])
def test_entry_points_bear_the_name_of_their_class(kind):
    for name, value in PROJECT["project"]["entry-points"][kind].items():
        assert value.rpartition(":")[2] == name

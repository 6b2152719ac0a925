"""What can be said of a class without importing its module: where the source is, its docstring, what it lacks."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path


def summary(module: str, name: str) -> str:
    """First line of the docstring of class `name`; "" where no source or no docstring is found."""
    tree = _parse(module)
    if not isinstance(tree, ast.Module):
        return ""
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").strip().partition("\n")[0]
    return ""


def missing(module: str, name: str) -> str | None:
    """Why importing `name` from `module` must fail, as far as the source shows; None where nothing is found.

    Sees a missing module or class, a syntax error, and top-level imports of packages that are not installed.
    Failures deeper down (in a sibling module, at run time) show only in a real import.
    """
    tree = _parse(module)
    if tree is None:
        return None
    if isinstance(tree, str):
        return tree
    for package in _imported(tree.body):
        if _top_level(package) is None:
            return f"ModuleNotFoundError: No module named {package!r}; install it"
    bound = set(_bound(tree.body))
    if name not in bound and not bound & {"*", "__getattr__"}:
        return f"AttributeError: module {module!r} has no class {name!r}"
    return None


@cache
def _parse(module: str) -> ast.Module | str | None:
    """The syntax tree; a sentence where there can be none; None where there is a module without Python source."""
    found = _find(module)
    if not isinstance(found, Path):
        return found
    try:
        return ast.parse(found.read_bytes())
    except (SyntaxError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _find(module: str) -> Path | str | None:
    """The source file, found through the top-level package alone, so that no parent package is imported."""
    top, _, rest = module.partition(".")
    spec = _top_level(top)
    if spec is None:
        return f"ModuleNotFoundError: No module named {top!r}; install it"
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest.split("."))
        for file in (path.with_name(path.name + ".py"), path / "__init__.py"):
            if file.is_file():
                return file
        if path.is_dir() or any(path.parent.glob(path.name + ".*")):
            return None  # a namespace package or a compiled module: nothing to read
    return f"ModuleNotFoundError: No module named {module!r}"


@cache
def _top_level(package: str) -> ModuleSpec | None:
    if package in sys.builtin_module_names:
        return ModuleSpec(package, None)
    try:
        return importlib.util.find_spec(package)
    except (ValueError, ImportError):  # a module in memory without a spec, or a finder that gave up
        return ModuleSpec(package, None) if package in sys.modules else None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those inside `if`, `try` and `with` included."""
    for node in body:
        yield node
        for block in ("body", "orelse", "finalbody"):
            if isinstance(node, (ast.If, ast.Try, ast.With)):
                yield from _statements(getattr(node, block, []))
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from _statements(handler.body)


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    """Top-level packages that are imported unconditionally; an import inside `if` or `try` may be meant to fail."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module defines at its top level."""
    for node in _statements(body):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))

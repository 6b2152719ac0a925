"""What the syntax tree of a module says of a class in it: its docstring, and why importing it must fail."""

import ast
from collections.abc import Iterator
from pathlib import Path


def parse(path: Path) -> ast.Module | str:
    """The syntax tree of a file; a sentence where there can be none."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def summary(tree: ast.Module, name: str) -> str:
    """First line of the docstring of class `name`; "" where there is none."""
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").strip().partition("\n")[0].rstrip()
    return ""


def binds(tree: ast.Module, name: str) -> bool:
    """Whether a module may define `name` at its top level."""
    return not {name, "*", "__getattr__"}.isdisjoint(_bound(tree.body))


def imported(tree: ast.Module) -> Iterator[str]:
    """Top-level packages that are imported unconditionally; an import inside `if` or `try` may be meant to fail."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


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

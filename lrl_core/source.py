"""What can be said of a class without importing its module: where the source is, its docstring, what it lacks.

The syntax tree (`syntax`) is the definition. Building it takes most of a second for all plugins together, so plain
text is looked at first: where a class is written as nearly all are, a few patterns give the same answer.
"""

import importlib.util
import re
import sys
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

_CLASS = re.compile(r"^[ \t]*class[ \t]+(\w+)", re.MULTILINE)
_HEAD = re.compile(
    r'class \w+(?:\([^()"\'#]*\))?:[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*'
    r'[ \t]+"""\s*((?:[^\n\\"]|"(?!""))*)'
)
"""A class whose body begins with a docstring in triple quotes; the group is its first line."""
_IMPORT = re.compile(r"^(?:import|from)[ \t]+([^\n]*)", re.MULTILINE)
"""An import at the left margin: at least every one that is unconditional, unless two statements share a line."""
_SHARED_LINE = re.compile(r"^[^\s#].*;[ \t]*(?:import|from)\b", re.MULTILINE)


def summary(module: str, name: str) -> str:
    """First line of the docstring of class `name`; "" where no source or no docstring is found."""
    path = _find(module)
    if not isinstance(path, Path):
        return ""
    seen = _glance(path, name)
    if seen is not None:
        return seen
    from lrl_core import syntax

    tree = _tree(path)
    return "" if isinstance(tree, str) else syntax.summary(tree, name)


def missing(module: str, name: str) -> str | None:
    """Why importing `name` from `module` must fail, as far as the source shows; None where nothing is found.

    Sees a missing module or class, a syntax error, and top-level imports of packages that are not installed.
    Failures deeper down (in a sibling module, at run time) show only in a real import. Where Python is told to keep no
    byte code (PYTHONDONTWRITEBYTECODE), syntax is looked at only around the class.
    """
    path = _find(module)
    if not isinstance(path, Path):
        return path
    if _glance(path, name) is not None and _imports_are_there(path) and _compiles(module, path):
        return None
    from lrl_core import syntax

    tree = _tree(path)
    if isinstance(tree, str):
        return tree
    for package in syntax.imported(tree):
        if _top_level(package) is None:
            return f"ModuleNotFoundError: No module named {package!r}; install it"
    return None if syntax.binds(tree, name) else f"AttributeError: module {module!r} has no class {name!r}"


def forget() -> None:
    """Read everything anew: files and packages may have changed."""
    for remembered in (_find, _text, _tree, _glance, _compiles, _top_level):
        remembered.cache_clear()


@cache
def _tree(path: Path) -> "ast.Module | str":
    from lrl_core import syntax

    return syntax.parse(path)


@cache
def _glance(path: Path, name: str) -> str | None:
    """The summary of a class that is written as nearly all are; None where the syntax tree must be asked."""
    text = _text(path)
    starts = [found.start() for found in _CLASS.finditer(text) if found[1] == name]
    head = _HEAD.match(text, starts[0]) if len(starts) == 1 else None
    if head is None or "'''" in text:
        return None
    inside_a_string = text.count('"""', 0, head.start()) % 2
    whole_line = text.startswith(("\n", '"""'), head.end())
    return head[1].rstrip() if whole_line and not inside_a_string else None


def _imports_are_there(path: Path) -> bool:
    """Whether no import can be unconditional and of a package that is not installed."""
    text = _text(path)
    if _SHARED_LINE.search(text):
        return False
    modules = [part.split() for line in _IMPORT.findall(text) for part in _parts(line)]
    return all(words and _top_level(words[0].partition(".")[0]) is not None for words in modules)


def _parts(line: str) -> list[str]:
    """The modules of `import a, b.c as d`; the one of `from a import b, c`."""
    return [line] if " import " in line else line.split(",")


@cache
def _compiles(module: str, path: Path) -> bool:
    """Whether there is byte code of the file as it is now; it is written by the way, as in an import."""
    if sys.dont_write_bytecode:
        return True
    try:
        return SourceFileLoader(module, str(path)).get_code(module) is not None
    except (SyntaxError, ValueError, OSError, EOFError):
        return False


@cache
def _text(path: Path) -> str:
    """The file as text; "" where it is no UTF-8, in which no pattern finds anything."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return ""


@cache
def _find(module: str) -> Path | str | None:
    """The source file, found through the top-level package alone, so that no parent package is imported.

    A sentence where there is no such module; None where there is one without Python source.
    """
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

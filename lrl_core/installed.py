"""Entry points of installed packages, read from their files.

`importlib.metadata` says the same, but takes longer to import and to ask than `lrl plugins` may take: it reads the
whole metadata of every package. Here a package's metadata is read only if it has entry points of the wanted groups.
"""

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import NamedTuple


class EntryPoint(NamedTuple):
    """A name under which a package offers something."""

    group: str
    """What kind of thing: `lrl.rewards`."""
    name: str
    """The name."""
    value: str
    """Where it is: `module:ClassName`."""
    package: str
    """Name of the distribution."""
    version: str
    """Its version."""


def entry_points(prefix: str) -> Iterator[EntryPoint]:
    """Entry points of all groups that begin so; of two copies of one package only the first on the path counts."""
    if _elsewhere():
        yield from _by_metadata(prefix)
        return
    seen: set[str] = set()
    for folder in _metadata_folders():
        name = _named(os.path.basename(folder))
        if name in seen:
            continue
        seen.add(name)
        text = _read(folder, "entry_points.txt")
        if f"[{prefix}" in text:
            package, version = _name_and_version(folder)
            for group, point, value in _points(text):
                if group.startswith(prefix):
                    yield EntryPoint(group, point, value, package, version)


def version(package: str) -> str:
    """Version of an installed package; "unknown" where it has no metadata."""
    for folder in _metadata_folders():
        if _named(os.path.basename(folder)) == _normal(package):
            return _name_and_version(folder)[1]
    return "unknown"


def _metadata_folders() -> Iterator[str]:
    """Every *.dist-info and *.egg-info on the path, in its order."""
    for place in sys.path:
        try:
            names = sorted(os.listdir(place or "."))
        except OSError:  # no such folder, or no folder
            continue
        yield from (os.path.join(place, name) for name in names if name.endswith((".dist-info", ".egg-info")))


def _named(folder: str) -> str:
    """The package of `name-1.0.dist-info`, `name.egg-info` or `name-1.0-py3.10.egg-info`."""
    if folder.endswith(".dist-info"):
        return _normal(folder.removesuffix(".dist-info").rpartition("-")[0])
    return _normal(folder.removesuffix(".egg-info").partition("-")[0])


def _elsewhere() -> bool:
    """Whether packages may stand somewhere else than in folders of the path: in archives, or where a finder knows."""
    archives = any(os.path.isfile(place) for place in sys.path)
    others = [finder for finder in sys.meta_path if finder is not PathFinder]
    return archives or any(callable(getattr(finder, "find_distributions", None)) for finder in others)


def _by_metadata(prefix: str) -> Iterator[EntryPoint]:
    """The same, slowly and from everywhere."""
    from importlib import metadata

    seen: set[str] = set()
    for distribution in metadata.distributions():
        package = distribution.name
        if package is None or _normal(package) in seen:
            continue
        seen.add(_normal(package))
        for point in distribution.entry_points:
            if point.group.startswith(prefix):
                yield EntryPoint(point.group, point.name, point.value, package, distribution.version)


def _points(text: str) -> Iterator[tuple[str, str, str]]:
    """Group, name and value of each line of an entry_points.txt."""
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[]").strip()
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield group, name.strip(), value.strip()


def _name_and_version(folder: str) -> tuple[str, str]:
    """What the head of a package's metadata says."""
    text = _read(folder, "METADATA") or _read(folder, "PKG-INFO")
    head = dict(line.split(": ", 1) for line in text.partition("\n\n")[0].splitlines() if ": " in line[:16])
    return head.get("Name", "").strip(), head.get("Version", "").strip()


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):  # a package without that file, or an egg-info that is a file itself
        return ""


def _normal(package: str) -> str:
    return package.lower().replace("_", "-").replace(".", "-")

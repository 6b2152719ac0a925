"""Where the files of a run go: runs/<recipe>/version_<k>, claimed once and shared by all processes of the run."""

import os
from pathlib import Path

_SHARED = "LRL_RUN_FOLDER"
"""Environment variable in which the first process tells the processes that it launches where the run's files go."""


def run_name(config: Path | None, recipes: Path | None) -> str:
    """Name of the folder that collects the runs of a recipe.

    A shipped recipe keeps its task (`captioning/quickstart` -> `captioning-quickstart`), another file gives its stem,
    and the `config.yaml` of an earlier run the name of that run's recipe.

    Args:
        config: The (last) recipe of the command line; None where everything came by options.
        recipes: Where the shipped recipes are; None where they are not installed.
    """
    if config is None:
        return "lrl"
    path = config.resolve()
    if recipes is not None and path.is_relative_to(recipes.resolve()):
        return "-".join(path.relative_to(recipes.resolve()).with_suffix("").parts)
    if path.stem == "config" and path.parent.name.startswith("version_"):
        return path.parent.parent.name
    return path.stem


def claim(root: Path, name: str) -> Path:
    """Make and return the next free `root/name/version_<k>`; launched processes get the one of their launcher."""
    if inherited := _inherited():
        return inherited
    parent = root / name
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(p.name[8:]) for p in parent.glob("version_*") if p.name[8:].isdecimal()]
    version = max(taken, default=-1) + 1
    while True:
        folder = parent / f"version_{version}"
        try:
            folder.mkdir()
        except FileExistsError:  # another run was quicker
            version += 1
        else:
            return _share(folder)


def take(folder: Path) -> Path:
    """Make and return the folder that the user asked for; it must not hold another run."""
    if inherited := _inherited():
        return inherited
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"The run folder {str(folder)!r} is not empty, and a run would overwrite what is there; "
            "name another one with --run_dir, or leave the option out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return _share(folder)


def _inherited() -> Path | None:
    """The folder of the process that launched this one; None in the first process of a machine."""
    launched = os.environ.get("LOCAL_RANK", "0") != "0"
    return Path(os.environ[_SHARED]) if launched and _SHARED in os.environ else None


def _share(folder: Path) -> Path:
    os.environ[_SHARED] = str(folder)
    return folder

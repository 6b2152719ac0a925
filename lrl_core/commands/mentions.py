"""Which plugins a recipe and a command line name: found by reading, before anything is imported."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lrl_core.commands import CommandError
from lrl_core.registry import KINDS

_KIND_OF_KEY = {word: kind for kind, one in KINDS.items() for word in (kind, one)} | {"data": "tasks"}
# What is trained alone may be a plugin of another kind: a reward that learns, for one.
_KIND_OF_KEY.pop("learner", None)
_WRAPPERS = ("class_path", "init_args", "dict_kwargs")


@dataclass(frozen=True)
class Mention:
    """A word of a recipe or a command line that may be the name of a plugin."""

    name: str
    """The word."""
    where: str
    """The file or option it stands in, for error messages."""
    kind: str | None
    """The kind of plugin that its key asks for; None where the key says nothing."""
    certain: bool
    """Whether the word can only be the name of a class (a class_path, `model.reward: ...`)."""


def in_config(path: Path) -> Iterator[Mention]:
    """Mentions in a recipe file and in the files that it includes."""
    yield from _in_tree(read_yaml(path), (), str(path), path.parent)


def in_arguments(arguments: list[str]) -> Iterator[Mention]:
    """Mentions in options: `--model.reward=CIDErD`, `--model.reward.help CIDErD`, `--data Captioning`."""
    for option, value in _options(arguments):
        keys = tuple(option.removeprefix("--").removesuffix("+").split("."))
        if keys[-1] == "help":
            yield from _in_word(value, (*keys[:-1], "class_path"), option)
        else:
            yield from _in_tree(_parsed(value), keys, option, Path())


def read_yaml(path: Path) -> Any:
    """The tree of a YAML file."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} is not readable as YAML: {error}") from error


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    for here, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = here.partition("=")
        if option.startswith("--"):
            yield option, value if equals else "" if following.startswith("--") else following


def _parsed(value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return None


def _in_tree(tree: Any, keys: tuple[str, ...], where: str, folder: Path) -> Iterator[Mention]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _in_tree(value, (*keys, str(key)), where, folder)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _in_tree(value, keys, where, folder)
    elif isinstance(tree, str) and tree.endswith((".yaml", ".yml", ".json")):
        if (folder / tree).is_file():
            yield from _in_tree(read_yaml(folder / tree), keys, str(folder / tree), (folder / tree).parent)
    elif isinstance(tree, str):
        yield from _in_word(tree, keys, where)


def _in_word(word: str, keys: tuple[str, ...], where: str) -> Iterator[Mention]:
    if not word.isidentifier():
        return
    place = where if where.startswith("--") else f"{where}: {'.'.join(keys)}"
    yield Mention(word, place, kind_of(keys), keys[-1:] == ("class_path",) or _names_a_part(keys))


def kind_of(keys: Iterable[str]) -> str | None:
    """The kind of plugin that a place in a recipe holds, from its last telling key; None where that key is no verb."""
    telling = [key for key in keys if key not in _WRAPPERS]
    return _KIND_OF_KEY.get(telling[-1].rpartition("_")[2]) if telling else None


def _names_a_part(keys: tuple[str, ...]) -> bool:
    """Whether a bare word here is a class: `data`, `--reward` of `lrl score`, and the parts of the model itself."""
    if keys in (("data",), ("reward",), ("model", "learner")) or keys[-1:] in (("optimizer",), ("scheduler",)):
        return True
    inside_a_part = any(key in _WRAPPERS for key in keys)
    return keys[:1] == ("model",) and not inside_a_part and kind_of(keys) is not None

"""Imports exactly the plugins that are named, and answers a name that nobody has with a suggestion."""

import sys
from collections.abc import Iterable

from lrl_core.commands import CommandError, recipes
from lrl_core.commands.mentions import Mention
from lrl_core.registry import KINDS, Plugin, PluginError, catalogue, names, suggest, unknown

_FAMILIAR = ("torch.optim", "torch.optim.lr_scheduler", "lightning.pytorch.callbacks")
"""Modules whose classes recipes name besides plugins."""


def import_named(mentions: Iterable[Mention]) -> None:
    """Import every plugin that is mentioned, so that its bare name resolves; then refuse names that nobody has."""
    listed = list(dict.fromkeys(mentions))
    loaded = [plugin for mention in listed for plugin in _import(mention)]
    for mention in listed:
        if mention.certain and (_misplaced(mention) or not _exists(mention.name)):
            raise CommandError(f"{mention.where}: {_unknown(mention, loaded)}")


def _import(mention: Mention) -> list[Plugin]:
    """The plugins that a mention means: those of the kind its key asks for, else all of that name."""
    of_name = {kind: plugins[mention.name] for kind, plugins in catalogue().items() if mention.name in plugins}
    meant = [of_name[mention.kind]] if mention.kind in of_name else list(of_name.values())
    problems = []
    for plugin in meant:
        try:
            plugin.load()
        except PluginError as error:
            problems.append(error)
    if problems and len(problems) == len(meant):
        raise CommandError(f"{mention.where}: {problems[0]}") from problems[0]
    return meant


def _misplaced(mention: Mention) -> bool:
    """Whether the name belongs to plugins of other kinds only than its place asks for."""
    kinds = [kind for kind, plugins in catalogue().items() if mention.name in plugins]
    return mention.kind is not None and bool(kinds) and mention.kind not in kinds


def _exists(name: str) -> bool:
    """Whether any imported module has a class of this name; whether it fits its place is jsonargparse's to say."""
    return any(isinstance(vars(module).get(name), type) for module in list(sys.modules.values()) if module is not None)


def _unknown(mention: Mention, loaded: list[Plugin]) -> str:
    if _misplaced(mention):
        assert mention.kind is not None
        found = " and a ".join(KINDS[kind] for kind, plugins in catalogue().items() if mention.name in plugins)
        known = ", ".join(names(mention.kind)) or "none"
        return (
            f"{mention.name!r} is {_a(found)}; expected {_a(KINDS[mention.kind])}. Installed {mention.kind}: {known}."
        )
    helpers = [name for plugin in loaded for name in _classes(plugin.module)]
    familiar = [name for module in _FAMILIAR for name in _classes(module)]
    if mention.kind is not None:
        aside = suggest(mention.name, [*names(mention.kind), *(familiar if mention.kind == "callbacks" else ())])
        return unknown(mention.name, mention.kind, _preset(mention.name) or aside)
    kinds = ", ".join(KINDS.values())
    return (
        f"There is no class {mention.name!r}. "
        f"{_preset(mention.name) or suggest(mention.name, [*names(), *helpers, *familiar])}"
        f"Expected the name of a plugin ({kinds}: `lrl plugins` lists them), of a torch optimiser, schedule or "
        "Lightning callback, or a full class path such as package.module.Name."
    )


def _preset(name: str) -> str:
    """The sentence (with its space) that a name is that of a preset; "" where it is not."""
    preset = recipes.preset_of(name)
    return f"{name} is a preset, not a class: add --config {preset} after the recipe. " if preset else ""


def _classes(module: str) -> list[str]:
    found = sys.modules.get(module)
    return [name for name, value in vars(found).items() if isinstance(value, type)] if found else []


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"

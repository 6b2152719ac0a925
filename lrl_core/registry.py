"""The catalogue of plugins: entry points of installed packages, listed without an import and imported only when named.

This module imports neither torch nor lightning, so that `lrl plugins` answers at once.
"""

import importlib
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from lrl_core import installed, source
from lrl_core.errors import PluginError as PluginError
from lrl_core.errors import suggest as suggest

KINDS = {
    "policies": "policy",
    "decoders": "decoder",
    "rewards": "reward",
    "baselines": "baseline",
    "objectives": "objective",
    "replays": "replay",
    "environments": "environment",
    "learners": "learner",
    "tasks": "task",
    "callbacks": "callback",
}
"""Every kind of plugin and its singular; the entry-point group of a kind is `lrl.<kind>`."""

_BASES = {kind: f"lrl_core.interfaces:{one.capitalize()}" for kind, one in KINDS.items()} | {
    "callbacks": "lightning.pytorch:Callback"
}
"""The class that plugins of a kind derive from; named, not imported: it needs torch."""


class Plugin(NamedTuple):
    """One entry point: a class that some installed package offers under its name."""

    kind: str
    """One of KINDS."""
    name: str
    """The name that a recipe writes; the same as the class name."""
    package: str
    """Name of the distribution that brings it."""
    version: str
    """Version of that distribution."""
    value: str
    """Where the class is: `module:ClassName`."""
    conflict: str | None = None
    """Why the name cannot be used although the class may be fine (two packages claim it); None where it can."""

    @property
    def module(self) -> str:
        """Dotted name of the module."""
        return self.value.partition(":")[0]

    @property
    def attribute(self) -> str:
        """Name of the class in that module."""
        return self.value.partition(":")[2]

    @property
    def problem(self) -> str | None:
        """Why it cannot be loaded, as far as can be said without importing it; None where nothing is wrong."""
        return self.conflict or _misnamed(self) or source.missing(self.module, self.attribute)

    @property
    def summary(self) -> str:
        """First line of the class's docstring, read from the source file; "" where there is none."""
        return source.summary(self.module, self.attribute)

    def load(self) -> type:
        """Import the module and return the class."""
        known = self.conflict or _misnamed(self)
        if known:
            raise PluginError(_cannot(self, known))
        try:
            found = getattr(importlib.import_module(self.module), self.attribute)
        except Exception as error:
            raise PluginError(_cannot(self, f"{type(error).__name__}: {error}")) from error
        module, base = _BASES[self.kind].split(":")
        if not isinstance(found, type) or not issubclass(found, getattr(importlib.import_module(module), base)):
            raise PluginError(_cannot(self, f"it is no subclass of {base}; derive it from {module}.{base}"))
        return found


@cache
def catalogue() -> dict[str, dict[str, Plugin]]:
    """Every installed plugin: kind -> name -> plugin, sorted. Read once per process."""
    found: dict[str, dict[str, Plugin]] = {kind: {} for kind in KINDS}
    for plugin in sorted(_installed(), key=lambda p: (p.kind, p.name, p.package)):
        rival = found[plugin.kind].get(plugin.name)
        found[plugin.kind][plugin.name] = plugin if rival is None else _both(rival, plugin)
    return found


def forget() -> None:
    """Look at what is installed anew: packages and their files may have changed."""
    catalogue.cache_clear()
    _origins.cache_clear()
    source.forget()


def load(name: str, kind: str | None = None) -> type:
    """Import the plugin of this name.

    Args:
        name: As a recipe writes it.
        kind: One of KINDS; None where the name alone is enough.
    """
    kinds = list(KINDS) if kind is None else [kind]
    candidates = [catalogue()[k][name] for k in kinds if name in catalogue()[k]]
    if not candidates:
        raise PluginError(unknown(name, kind))
    if len(candidates) > 1:
        found = " and ".join(f"{KINDS[p.kind]} of {p.package}" for p in candidates)
        raise PluginError(f"The plugin name {name!r} is ambiguous: {found}. Say which kind is meant.")
    return candidates[0].load()


def names(kind: str | None = None) -> list[str]:
    """Names of the installed plugins of one kind, or of all."""
    kinds = list(KINDS) if kind is None else [kind]
    return sorted({name for k in kinds for name in catalogue()[k]})


def unknown(name: str, kind: str | None = None, guess: str | None = None) -> str:
    """What to say of a name that no plugin has: a guess and the names that exist.

    Args:
        name: As it was written.
        kind: One of KINDS; None for any.
        guess: What `suggest` said; None asks it about the installed plugins of that kind.
    """
    what = "plugin" if kind is None else KINDS[kind]
    plural = "plugins" if kind is None else kind
    guess = suggest(name, names(kind)) if guess is None else guess
    return f"There is no {what} {name!r}. {guess}Installed {plural}: {', '.join(names(kind)) or 'none'}."


def origin(cls: type) -> str:
    """Which package a class comes from, "package version", for error messages and logs.

    A class that nobody registered is answered with its top-level module.
    """
    value = f"{cls.__module__}:{cls.__qualname__}"
    return _origins().get(value, cls.__module__.partition(".")[0])


@cache
def _origins() -> dict[str, str]:
    return {plugin.value: f"{plugin.package} {plugin.version}" for plugin in _installed()}


def _installed() -> Iterator[Plugin]:
    """What installed packages offer in the groups of KINDS."""
    for point in installed.entry_points("lrl."):
        kind = point.group.removeprefix("lrl.")
        if kind in KINDS:
            yield Plugin(kind, point.name, point.package, point.version, point.value)


def _both(one: Plugin, other: Plugin) -> Plugin:
    claims = f"{one.package} and {other.package} both register the {KINDS[one.kind]} {one.name!r}"
    return one._replace(
        package=f"{one.package}, {other.package}",
        version=f"{one.version}, {other.version}",
        conflict=f"{claims}; uninstall one of them, or write the full class path "
        f"({one.value.replace(':', '.')} or {other.value.replace(':', '.')})",
    )


def _misnamed(plugin: Plugin) -> str | None:
    if plugin.attribute == plugin.name:
        return None
    return f"its entry point {plugin.name} = {plugin.value!r} must bear the name of its class; rename one of them"


def _cannot(plugin: Plugin, why: str) -> str:
    return (
        f"The {KINDS[plugin.kind]} {plugin.name!r} of package {plugin.package} {plugin.version} "
        f"cannot be loaded from {plugin.value!r}: {why}. Repair or reinstall {plugin.package}, or name another "
        f"{KINDS[plugin.kind]}: `lrl plugins` lists them."
    )

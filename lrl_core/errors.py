"""The error that names a plugin, and the guess at what a misspelt name was meant to be."""

from collections.abc import Iterable


class PluginError(RuntimeError):
    """A plugin cannot be used, failed or broke its contract; the message says which one, why and what to do."""


def suggest(name: str, names: Iterable[str]) -> str:
    """The sentence "Did you mean ...? " (with its space) for a misspelt name; "" where nothing is near."""
    import difflib  # only errors need it

    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"Did you mean {by_lower[near[0]]!r}? " if near else ""

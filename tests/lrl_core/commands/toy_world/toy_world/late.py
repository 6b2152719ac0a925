"""A plugin whose module fails in the middle: the source alone does not show it."""

raise RuntimeError("no licence file")


class Late:
    """Never comes into being."""

"""A plugin that needs a package which is not installed."""

import a_package_that_nobody_has


class Needy(a_package_that_nobody_has.Thing):
    """Needs something."""

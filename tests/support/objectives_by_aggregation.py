"""Every registered objective with every aggregation that it offers, for tests that hold for all of them."""

from collections.abc import Callable
from functools import partial
from typing import get_args

from registered import accepts, build, names

from lrl_core.functional import Aggregation
from lrl_core.interfaces import Objective


def ways() -> dict[str, Callable[[], Objective]]:
    """Name of each way -> what builds the objective."""
    made: dict[str, Callable[[], Objective]] = {}
    for name in names("objectives"):
        made[name] = partial(build, "objectives", name)
        if accepts("objectives", name, "aggregation"):
            for mode in get_args(Aggregation):
                made[f"{name}-{mode}"] = partial(build, "objectives", name, aggregation=mode, length=4)
    return made

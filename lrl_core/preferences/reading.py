"""Who learns from judgments while a policy trains, and how it is told where they are."""

from abc import ABC, abstractmethod

RUN = "run"
"""In place of a URL: the store of this very run, whose folder nobody knows when the recipe is read."""


class ReadsLabels(ABC):
    """Mixed into a learner that learns from a store of judgments."""

    @abstractmethod
    def look_in(self, url: str) -> None:
        """Take RUN for this store, from now on; what the recipe names otherwise stays.

        Args:
            url: SQLAlchemy URL, or the path of a SQLite file.
        """

"""Who learns from judgments while a policy trains: where they are, and what a prompt reads like in them."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrl_core.tokenizer import Tokenizer
    from lrl_core.types import Prompts

RUN = "run"
"""In place of a URL: the store of this very run, whose folder nobody knows when the recipe is read."""


FILE = "labels.db"
"""The file of a run's folder in which its questions and labels are."""


class ReadsLabels(ABC):
    """Mixed into a learner that learns from a store of judgments."""

    @abstractmethod
    def look_in(self, url: str) -> None:
        """Take RUN for this store, from now on; what the recipe names otherwise stays.

        Args:
            url: SQLAlchemy URL, or the path of a SQLite file.
        """


def prompt_text(prompts: "Prompts", row: int, tokenizer: "Tokenizer") -> str:
    """The prompt as the data has it (column `prompt`), else its tokens as text; judged and scored prompts read alike.

    Args:
        prompts: Of a batch.
        row: Which of them.
        tokenizer: The task's.
    """
    written = prompts.examples[row].get("prompt") if prompts.examples else None
    if isinstance(written, str):
        return written
    return tokenizer.decode(prompts.tokens[row, : int(prompts.lengths[row])].tolist())

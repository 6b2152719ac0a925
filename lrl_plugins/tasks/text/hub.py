"""Data sets of the `datasets` library."""

from typing import Any

from lrl_plugins.tasks.text.sources import Example, Fields, TextSource


class HubDataset(TextSource):
    """A data set by its hub id or local folder, read by the `datasets` library, which is imported only then.

    Args:
        path: Hub id such as owner/name, or a folder that `datasets` can read.
        name: Which configuration of it; None = the only one.
        prompt_field: Column with the prompt: a text, a table or a list of texts.
        references_fields: Columns with human answers, each a text or a list of texts; [] where there are none. None =
            ["references"].
        prompt_texts: Where prompt_field holds a list: how many of its texts make the prompt; the rest are answers
            where references_fields names the same column.
        id_field: Column with the row's id; None = split and row number.
        train: The data set's name of the training split; slices such as train[:1000] work.
        val: Its name of the validation split.
        test: Its name of the test split; None where there is none.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        prompt_field: str = "prompt",
        references_fields: list[str] | None = None,
        prompt_texts: int = 1,
        id_field: str | None = None,
        train: str = "train",
        val: str = "validation",
        test: str | None = "test",
    ) -> None:
        references = ["references"] if references_fields is None else references_fields
        self.fields = Fields("HubDataset", prompt_field, references, id_field, prompt_texts)
        self.path, self.name = path, name
        self.names = {"train": train, "val": val, "test": test}

    def splits(self) -> dict[str, list[Example]]:
        return {split: self._examples(name) for split, name in self.names.items() if name is not None}

    def _examples(self, name: str) -> list[Example]:
        rows = enumerate(self._load(name))
        return [self.fields.example(row, f"{name}-{i}", f"row {i} of {name} of {self.path}") for i, row in rows]

    def _load(self, name: str) -> Any:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise ImportError(
                "HubDataset: got no `datasets` library, expected it to be installed. Run `pip install datasets`."
            ) from error
        try:
            return load_dataset(self.path, self.name, split=name)
        # What a missing network, data set, configuration or split ends in.
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"HubDataset: got {self.path!r} (configuration {self.name}, split {name!r}), which `datasets` cannot "
                f"load ({reason}), expected a data set. Correct the names, or download it once with network access."
            ) from error

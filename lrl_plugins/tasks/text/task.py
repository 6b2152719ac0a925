"""What the text tasks have in common: a source, a tokenizer, a prompt layout, and batches of `Prompts`."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from torch.utils.data import Dataset
from torchmetrics import Metric

from lrl_core.interfaces import TaskFacts
from lrl_core.tokenizer import Tokenizer
from lrl_plugins.tasks.backspace import WithBackspace
from lrl_plugins.tasks.splits import FILES, Serving, SplitTask
from lrl_plugins.tasks.text.bpe import text_tokenizer
from lrl_plugins.tasks.text.checked import checked_splits
from lrl_plugins.tasks.text.layout import Layout, Side
from lrl_plugins.tasks.text.rows import TextRows, collator
from lrl_plugins.tasks.text.sources import Example, TextSource


@dataclass(frozen=True)
class Settings:
    """What every text task is told; each task writes down its own defaults."""

    batch_size: int
    references_per_prompt: int
    template: str
    max_prompt_length: int
    max_length: int
    truncation: Side
    tokenizer: str | None
    vocabulary: int | None
    min_count: int
    seed: int
    backspace: bool = False
    noise: float = 0.0


class TextTask(SplitTask):
    """Prompts and answers as text. Everything is read and checked when the recipe is read.

    Every prompt is shown once per epoch. Validation and test show it once, with its first answer as the target.

    Args:
        source: Where prompts and answers come from.
        settings: Sizes, wording and vocabulary.
    """

    def __init__(self, source: TextSource, settings: Settings) -> None:
        super().__init__()
        self.source = source
        self.settings = settings
        self.layout = Layout(settings.template, settings.max_prompt_length, settings.truncation)
        self._check_settings()

    @abstractmethod
    def measure(self, examples: dict[str, Example], test: bool) -> Metric:
        """The metric of a split.

        Args:
            examples: The split's examples by id, for metrics that look at more than answers and references.
            test: Whether it is the test, which may take longer.
        """

    def prepare(self, example: Example) -> Example:
        """What this task makes of an example before anything else sees it. Default: nothing."""
        return example

    def metrics(self, stage: str) -> Metric:
        test = stage == "test"
        return self.measure({example.id: example for example in self.examples["test" if test else "val"]}, test)

    def facts(self) -> TaskFacts:
        rows = self._rows["train"]
        two = [rows[i % len(rows), 0][:1] for i in range(2)]
        references = tuple(example.references for example in self.examples["train"])
        return TaskFacts(self.tokenizer, references if any(references) else (), collator(self.tokenizer.pad)(two))

    def splits(self) -> Mapping[str, Dataset[Any]]:
        return self._rows

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """The examples by split, checked."""
        splits = checked_splits(self.source, self.prepare)
        for example in (example for examples in splits.values() for example in examples):
            self.layout.fill(example, example.prompt)
        return splits

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back, the same for prompts and answers."""
        texts = [
            text
            for example in self.examples["train"]
            for text in (self.layout.fill(example, example.prompt), *example.references)
        ]
        settings = self.settings
        tokenizer = text_tokenizer(settings.tokenizer, settings.vocabulary, texts, settings.min_count)
        return WithBackspace(tokenizer) if settings.backspace else tokenizer

    @cached_property
    def _rows(self) -> dict[str, TextRows]:
        rows, first = {}, 0
        for split, examples in self.examples.items():
            count, noise = (self.settings.references_per_prompt, self.settings.noise) if split == "train" else (None, 0)
            longest, seed = self.settings.max_length, self.settings.seed
            rows[split] = TextRows(examples, first, self.tokenizer, self.layout, longest, count, seed, noise)
            first += len(examples)
        return rows

    def serving(self) -> Serving:
        name, settings = type(self.source).__name__, self.settings
        return Serving(name, "prompts", FILES, collator(self.tokenizer.pad), settings.batch_size, settings.seed)

    def _check_settings(self) -> None:
        who = type(self).__name__
        least = {"batch_size": 1, "references_per_prompt": 1, "max_prompt_length": 1, "max_length": 2, "min_count": 1}
        for name, value in least.items():
            given = getattr(self.settings, name)
            if given < value:
                raise ValueError(f"{who}: got {name} {given}, expected at least {value}. Correct it in the recipe.")
        if self.settings.truncation not in get_args(Side):
            raise ValueError(
                f"{who}: got truncation {self.settings.truncation!r}, expected left or right. Correct the recipe."
            )
        if not 0 <= self.settings.noise < 1:
            raise ValueError(
                f"{who}: got noise {self.settings.noise}, expected a chance in [0, 1). Correct the recipe."
            )
        if self.settings.noise > 0 and not self.settings.backspace:
            raise ValueError(
                f"{who}: got noise {self.settings.noise} without backspace, expected a token that takes the mistakes "
                "back. Set backspace to true, or noise to 0."
            )

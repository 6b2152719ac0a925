"""The arithmetic task: problems with a number as the answer, which can be checked."""

from typing import Literal

from torchmetrics import Metric

from lrl_plugins.tasks.text.hub import HubDataset
from lrl_plugins.tasks.text.metrics import ArithmeticMetrics
from lrl_plugins.tasks.text.sources import Example, JsonLines, Parallel, TextSource
from lrl_plugins.tasks.text.sums import Sums
from lrl_plugins.tasks.text.task import Settings, TextTask

__all__ = ["Arithmetic", "HubDataset", "JsonLines", "Parallel", "Sums", "TextSource"]


class Arithmetic(TextTask):
    """Work out a number. Without arguments: generated sums with worked steps, nothing to download.

    Held-out metrics: accuracy of the final number, by number of operands where there is such a column, and answered,
    the share of answers with a number.

    Every prompt is one of `batch_size` per step and rank, once per epoch.

    Args:
        source: Where prompts and answers come from: JsonLines, Parallel, HubDataset, Sums or a class of your own; None
            = Sums().
        batch_size: Prompts per step and rank.
        references_per_prompt: Answers to learn from per prompt and epoch (fewer where a prompt has fewer); from epoch
            to epoch they take turns.
        template: Wording of the prompt: `{prompt}` and other columns of the row stand in braces.
        max_prompt_length: Longest prompt in tokens; words of longer ones are left out, those of the template stay.
        max_length: Longest target in tokens, EOS counted; longer answers are cut.
        truncation: Where a longer prompt loses words: right keeps its beginning, left its end.
        tokenizer: A folder with a transformers tokenizer or a .json written by WordTokenizer.save; None = made from the
            training texts.
        vocabulary: Ids of a byte-pair vocabulary trained on prompts and answers, where tokenizer is None; None = their
            words, which lose signs such as + and -.
        min_count: Words that occur less often become <unk>; only where words are the vocabulary.
        marker: What announces the final number in an answer; without it the last number counts.
        seed: Of the order of prompts and answers.
    """

    def __init__(
        self,
        source: TextSource | None = None,
        batch_size: int = 16,
        references_per_prompt: int = 1,
        template: str = "{prompt}",
        max_prompt_length: int = 64,
        max_length: int = 48,
        truncation: Literal["left", "right"] = "right",
        tokenizer: str | None = None,
        vocabulary: int | None = 256,
        min_count: int = 1,
        marker: str = "####",
        seed: int = 0,
    ) -> None:
        settings = Settings(
            batch_size, references_per_prompt, template, max_prompt_length, max_length, truncation, tokenizer,
            vocabulary, min_count, seed,
        )  # fmt: skip
        super().__init__(source if source is not None else Sums(), settings)
        self.marker = marker

    def measure(self, examples: dict[str, Example], test: bool) -> Metric:
        return ArithmeticMetrics(examples, self.marker)

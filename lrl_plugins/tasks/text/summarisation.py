"""The summarisation task: long texts and what matters in them."""

from typing import Literal

from torchmetrics import Metric

from lrl_plugins.tasks.text.hub import HubDataset
from lrl_plugins.tasks.text.made_up import MadeUpMatches
from lrl_plugins.tasks.text.metrics import SummaryMetrics
from lrl_plugins.tasks.text.sources import Example, JsonLines, Parallel, TextSource
from lrl_plugins.tasks.text.task import Settings, TextTask

__all__ = ["HubDataset", "JsonLines", "MadeUpMatches", "Parallel", "Summarisation", "TextSource"]


class Summarisation(TextTask):
    """Say in a few words what a text says. Without arguments: made-up football reports, nothing to download.

    Held-out metrics: ROUGE_1, ROUGE_2 and ROUGE_L (F1), and words, the mean length.

    Every prompt is one of `batch_size` per step and rank, once per epoch.

    Args:
        source: Where prompts and answers come from: JsonLines, Parallel, HubDataset, MadeUpMatches or a class of your
            own; None = MadeUpMatches().
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
            words in lower case.
        min_count: Words that occur less often become <unk>; only where words are the vocabulary.
        seed: Of the order of prompts and answers.
    """

    def __init__(
        self,
        source: TextSource | None = None,
        batch_size: int = 16,
        references_per_prompt: int = 1,
        template: str = "{prompt}",
        max_prompt_length: int = 128,
        max_length: int = 32,
        truncation: Literal["left", "right"] = "right",
        tokenizer: str | None = None,
        vocabulary: int | None = None,
        min_count: int = 1,
        seed: int = 0,
    ) -> None:
        settings = Settings(
            batch_size, references_per_prompt, template, max_prompt_length, max_length, truncation, tokenizer,
            vocabulary, min_count, seed,
        )  # fmt: skip
        super().__init__(source if source is not None else MadeUpMatches(), settings)

    def measure(self, examples: dict[str, Example], test: bool) -> Metric:
        return SummaryMetrics()

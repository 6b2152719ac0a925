"""The infilling task: the beginning and the end of a story are given, the middle is wanted."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, get_args

from torch.utils.data import Dataset
from torchmetrics import Metric

from lrl_plugins.sentence_encoder import SentenceEncoder
from lrl_plugins.tasks.text.hub import HubDataset
from lrl_plugins.tasks.text.infilling_metrics import InfillingMetrics
from lrl_plugins.tasks.text.layout import Layout
from lrl_plugins.tasks.text.made_up import MadeUpStories
from lrl_plugins.tasks.text.rows import Row, TextRows
from lrl_plugins.tasks.text.sources import Example, JsonLines, TextSource
from lrl_plugins.tasks.text.stories import Stories
from lrl_plugins.tasks.text.task import Settings, TextTask

__all__ = ["HubDataset", "Infilling", "JsonLines", "MadeUpStories", "Stories", "TextSource"]

Order = Literal["middle", "story", "both"]


class Infilling(TextTask):
    """Write what stands between the beginning and the end of a story. Without arguments: made-up stories.

    The prompt shows the end first, so that the middle goes on from the beginning (Hu et al. 2024, arXiv 2310.04363,
    section 4.2). The examples have the columns `before` and `after`, which the reward LMPosterior reads. Held-out
    metrics against the human middle: BLEU_4, GLEU_4 and words, with an encoder BERTScore, and diversity where a prompt
    has several answers.

    Every prompt is one of `batch_size` per step and rank, once per epoch.

    Args:
        source: Where beginnings, middles (the answers) and ends (a column `after`) come from: Stories, JsonLines,
            HubDataset, MadeUpStories or a class of your own; None = MadeUpStories().
        order: What maximum likelihood learns: `middle`, from both ends; `story`, from the beginning alone to write the
            middle and the end, which makes a language model whose posterior can be sampled; `both`, one row of each
            per example, for one model that can do both. Validation and test ask for the middle, with `story` for both.
        story_epochs: With order `both`: for how many epochs whole stories are shown too, as many as there are of
            warm-up, for episodes are drawn for every row; None = in all.
        batch_size: Prompts per step and rank.
        references_per_prompt: Answers to learn from per prompt and epoch (fewer where a prompt has fewer); from epoch
            to epoch they take turns.
        template: Wording of the prompt: `{prompt}`, the beginning, and `{after}`, the end, stand in braces.
        max_prompt_length: Longest prompt in tokens; words of longer beginnings are left out.
        max_length: Longest middle in tokens, EOS counted; longer ones are cut.
        max_story_length: Longest middle and end together, EOS counted, where whole stories are learnt.
        truncation: Where a longer beginning loses words: right keeps its beginning, left its end.
        tokenizer: A folder with a transformers tokenizer or a .json written by WordTokenizer.save; None = made from the
            training texts.
        vocabulary: Ids of a byte-pair vocabulary trained on prompts and answers, where tokenizer is None; None = their
            words in lower case.
        min_count: Words that occur less often become <unk>; only where words are the vocabulary.
        encoder: Folder or hub name of a sentence encoder for BERTScore and diversity; None leaves them out.
        seed: Of the order of prompts and answers.
    """

    def __init__(
        self,
        source: TextSource | None = None,
        order: Order = "middle",
        story_epochs: int | None = None,
        batch_size: int = 16,
        references_per_prompt: int = 1,
        template: str = "{after} <sep> {prompt}",
        max_prompt_length: int = 64,
        max_length: int = 32,
        max_story_length: int = 64,
        truncation: Literal["left", "right"] = "left",
        tokenizer: str | None = None,
        vocabulary: int | None = None,
        min_count: int = 1,
        encoder: str | None = None,
        seed: int = 0,
    ) -> None:
        settings = Settings(
            batch_size, references_per_prompt, template, max_prompt_length, max_length, truncation, tokenizer,
            vocabulary, min_count, seed,
        )  # fmt: skip
        super().__init__(source if source is not None else MadeUpStories(), settings)
        self.order, self.story_epochs, self.max_story_length = order, story_epochs, max_story_length
        self.encoder = None if encoder is None else SentenceEncoder("Infilling", encoder)
        if order not in get_args(Order):
            raise ValueError(
                f"Infilling: got order {order!r}, expected one of {', '.join(get_args(Order))}. Correct it."
            )
        if story_epochs is not None and (order != "both" or story_epochs < 0):
            raise ValueError(
                f"Infilling: got story_epochs {story_epochs} with order {order!r}, expected at least 0, and order "
                "'both'. Leave story_epochs out, or set order to both."
            )

    def prepare(self, example: Example) -> Example:
        """The example with both ends among its columns."""
        after = example.columns.get("after")
        if not isinstance(after, str) or not after.strip():
            raise ValueError(
                f"Infilling: got {after!r} as column `after` of example {example.id}, expected the end of the story as "
                "text. Give the rows such a column, or let Stories read lists of sentences (with after >= 1)."
            )
        return replace(example, columns={**example.columns, "before": example.prompt})

    def measure(self, examples: dict[str, Example], test: bool) -> Metric:
        return InfillingMetrics(self.encoder)

    def splits(self) -> Mapping[str, Dataset[Any]]:
        return self._shown

    @cached_property
    def _shown(self) -> dict[str, Dataset[Any]]:
        if self.order == "middle":
            return dict(self._rows)
        if self.order == "story":
            return {split: self._stories(rows) for split, rows in self._rows.items()}
        train = self._rows["train"]
        return {**self._rows, "train": BothRows(train, self._stories(train), self.story_epochs)}

    def _stories(self, middles: TextRows) -> "StoryRows":
        layout = Layout("{prompt}", self.settings.max_prompt_length, self.settings.truncation)
        # Another prompt is another group; the groups of all splits come before.
        return StoryRows(middles, layout, self.max_story_length, sum(map(len, self.examples.values())))


class StoryRows(Dataset[list[Row]]):
    """The same examples with the beginning as the prompt, and the middle and the end as the answer.

    The answer's tokens are those of the middle and those of the end, each encoded by itself: as LMPosterior reads them.

    Args:
        middles: Rows that ask for the middle, with the column `after`.
        layout: How the beginning is cut.
        max_length: Longest answer in tokens, EOS counted.
        groups: What is added to group numbers.
    """

    def __init__(self, middles: TextRows, layout: Layout, max_length: int, groups: int) -> None:
        self.middles, self.layout, self.max_length, self.groups = middles, layout, max_length, groups

    def __len__(self) -> int:
        return len(self.middles)

    def __getitem__(self, key: tuple[int, int]) -> list[Row]:
        return [self._whole(row) for row in self.middles[key]]

    def _whole(self, row: Row) -> Row:
        tokenizer, after = self.middles.tokenizer, row.example.columns["after"]
        answers = tuple(f"{middle} {after}" for middle in row.example.references)
        target = row.target
        if target is not None:
            target = (*[*target[:-1], *tokenizer.encode(after)][: self.max_length - 1], tokenizer.eos)
        prompt = self.layout.tokens(row.example, tokenizer)
        return Row(replace(row.example, references=answers), row.group + self.groups, prompt, target)


class BothRows(Dataset[list[Row]]):
    """Rows that ask for the middle, and in the first epochs also those that ask for the rest of the story.

    Args:
        middles: What is always shown.
        stories: What is shown beside it.
        epochs: In how many epochs; None = all.
    """

    def __init__(self, middles: TextRows, stories: StoryRows, epochs: int | None) -> None:
        self.middles, self.stories, self.epochs = middles, stories, epochs

    def __len__(self) -> int:
        return len(self.middles)

    def __getitem__(self, key: tuple[int, int]) -> list[Row]:
        shown = self.epochs is None or key[1] < self.epochs
        return [*self.middles[key], *(self.stories[key] if shown else [])]

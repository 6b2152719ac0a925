"""The task of human preferences: prompts whose answers somebody ranked."""

from functools import cached_property
from typing import Literal, get_args

from torchmetrics import Metric

from lrl_core.interfaces import TaskFacts
from lrl_core.tokenizer import Tokenizer
from lrl_plugins.tasks.preferences.checked import checked_comparisons
from lrl_plugins.tasks.preferences.made_up import MadeUpPreferences
from lrl_plugins.tasks.preferences.metrics import AnswerMetrics
from lrl_plugins.tasks.preferences.published import Continuations, Dialogues, RatedTranslations
from lrl_plugins.tasks.preferences.rows import Answers, RankedRows, collator
from lrl_plugins.tasks.preferences.sources import PreferenceSource, Ranked, RankedJsonLines, StoredLabels
from lrl_plugins.tasks.splits import FILES, Serving, SplitTask
from lrl_plugins.tasks.text.bpe import text_tokenizer
from lrl_plugins.tasks.text.layout import Layout, Side

__all__ = [
    "Continuations", "Dialogues", "MadeUpPreferences", "PreferenceSource", "Preferences", "RankedJsonLines",
    "RatedTranslations", "StoredLabels",
]  # fmt: skip


class Preferences(SplitTask):
    """Prompts with two or more answers that somebody ranked. Without arguments: made-up opinions, no files.

    With `answers: ranked` a batch holds one row per candidate, best first, the rows of a comparison together and never
    parted over micro-batches or ranks: what preference models and DPO learn from. With `answers: best` it holds each
    prompt once, with the best answer to learn from (of several best ones another in every epoch): for maximum
    likelihood, and as prompts of reinforcement learning. The vocabulary is made of all candidates either way, so that
    runs that differ in `answers` alone share it.

    Held-out metrics of generated answers: words and distinct_1 to distinct_3, and in a made-up world worth. Validation
    and test batches are made like training batches: a model of preferences is examined on whole comparisons; a policy
    answers a prompt and is scored for it once, and the perplexity that the core adds is over the rows that it reads.

    Args:
        source: Where ranked answers come from: RankedJsonLines, Dialogues, RatedTranslations, StoredLabels,
            Continuations, MadeUpPreferences or a class of your own; None = MadeUpPreferences().
        answers: `ranked` shows all candidates of a prompt, `best` only the best one.
        batch_size: Comparisons (with `best`: prompts) per step and rank.
        template: Wording of the prompt: `{prompt}` and other columns of the row stand in braces.
        max_prompt_length: Longest prompt in tokens; words of longer ones are left out, those of the template stay.
        max_length: Longest answer in tokens, EOS counted; longer ones are cut.
        truncation: Where a longer prompt loses words: right keeps its beginning, left its end, which in a dialogue is
            what is to be answered.
        tokenizer: A folder with a transformers tokenizer or a .json written by WordTokenizer.save; None = made from the
            training texts.
        vocabulary: Ids of a byte-pair vocabulary trained on prompts and answers, where tokenizer is None; None = their
            words in lower case.
        min_count: Words that occur less often become <unk>; only where words are the vocabulary.
        seed: Of the order of prompts and of best answers.
    """

    def __init__(
        self,
        source: PreferenceSource | None = None,
        answers: Literal["ranked", "best"] = "ranked",
        batch_size: int = 16,
        template: str = "{prompt}",
        max_prompt_length: int = 64,
        max_length: int = 32,
        truncation: Literal["left", "right"] = "left",
        tokenizer: str | None = None,
        vocabulary: int | None = None,
        min_count: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        least = {
            "batch_size": (batch_size, 1), "max_prompt_length": (max_prompt_length, 1), "max_length": (max_length, 2),
            "min_count": (min_count, 1),
        }  # fmt: skip
        for name, (given, fewest) in least.items():
            if given < fewest:
                raise ValueError(f"Preferences: got {name} {given}, expected at least {fewest}. Correct the recipe.")
        for name, chosen, known in (("answers", answers, Answers), ("truncation", truncation, Side)):
            if chosen not in get_args(known):
                expected = " or ".join(get_args(known))
                raise ValueError(f"Preferences: got {name} {chosen!r}, expected {expected}. Correct the recipe.")
        self.source = source if source is not None else MadeUpPreferences()
        self.answers: Answers = answers
        self.batch_size, self.max_length, self.seed = batch_size, max_length, seed
        self.layout = Layout(template, max_prompt_length, truncation)
        self.wanted = (tokenizer, vocabulary, min_count)

    @cached_property
    def comparisons(self) -> dict[str, list[Ranked]]:
        """The comparisons by split, read and checked."""
        splits = checked_comparisons(self.source, self.answers)
        for item in (item for items in splits.values() for item in items):
            self.layout.fill(item.example, item.prompt)
        return splits

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back, the same for prompts and answers."""
        name, vocabulary, min_count = self.wanted
        texts = [
            text
            for item in self.comparisons["train"]
            for text in (self.layout.fill(item.example, item.prompt), *item.candidates)
        ]
        return text_tokenizer(name, vocabulary, texts, min_count)

    def facts(self) -> TaskFacts:
        rows = self._rows["train"]
        two = [rows[i % len(rows), 0][:1] for i in range(2)]
        references = tuple(item.best for item in self.comparisons["train"])
        return TaskFacts(self.tokenizer, references, collator(self.tokenizer.pad)(two))

    def metrics(self, stage: str) -> Metric:
        return AnswerMetrics(self.source.worth)

    def splits(self) -> dict[str, RankedRows]:
        return self._rows

    def serving(self) -> Serving:
        name = type(self.source).__name__
        return Serving(name, "prompts", FILES, collator(self.tokenizer.pad), self.batch_size, self.seed)

    @cached_property
    def _rows(self) -> dict[str, RankedRows]:
        rows, first = {}, 0
        for split, items in self.comparisons.items():
            how = self.layout, self.max_length, self.answers
            rows[split] = RankedRows(items, first, self.tokenizer, *how, turns=split == "train", seed=self.seed)
            first += len(items)
        return rows

"""The task of translating a sentence while it is being spoken (Gu et al. 2017, arXiv:1610.00388)."""

from functools import cached_property
from pathlib import Path

from torchmetrics import Metric

from lrl_core.interfaces import TaskFacts
from lrl_plugins.tasks.simultaneous_translation.corpus_metric import SimultaneousMetrics
from lrl_plugins.tasks.simultaneous_translation.environment import Speaker
from lrl_plugins.tasks.simultaneous_translation.made_up import VerbLast
from lrl_plugins.tasks.simultaneous_translation.rows import Collate, Sentences, Way
from lrl_plugins.tasks.splits import FILES, Serving, SplitTask
from lrl_plugins.tasks.symbols import WithSymbols
from lrl_plugins.tasks.text.bpe import text_tokenizer
from lrl_plugins.tasks.text.checked import checked_splits
from lrl_plugins.tasks.text.hub import HubDataset
from lrl_plugins.tasks.text.sources import Example, JsonLines, Parallel, TextSource

__all__ = ["HubDataset", "JsonLines", "Parallel", "SimultaneousTranslation", "TextSource", "VerbLast"]

READ = "<read>"
"""The token that asks for one more word of the source."""


class SimultaneousTranslation(SplitTask):
    """Translate a sentence that is still being spoken: READ hears one more word, any other token is written.

    Without arguments: a made-up language whose verb comes last, nothing to download. Every word of the source costs one
    READ, except the first ones; once it is over, READ cannot be chosen. Held-out metrics: BLEU (sacrebleu) and the
    latencies AP, AL, LAAL, DAL and CW in words; `lrl test` also writes instances.log for SimulEval.

    What is learnt from people are their translations with a READ wherever a wait-k reader would read, k drawn anew for
    every sentence and epoch (multi-path training, Elbayad et al. 2020), and near such paths.

    Args:
        source: Where sentences and translations come from: Parallel (two files), JsonLines, HubDataset, VerbLast or a
            class of your own; None = VerbLast().
        batch_size: Sentences per step and rank.
        first: Source words heard before the first action; 0 only with policies that put something before the source.
        spoken: Whether the words heard enter the line as words of the world, as decoder-only policies need it. False:
            encoder-decoder policies see them by cross-attention, as far as they have read.
        largest_lag: Readers to learn from wait for 1 to this many words, or for the whole sentence.
        straying: Share of the sentences whose reader strays from wait-k by a random walk; 0 = none does.
        max_words: Longest source and target in words; longer ones are cut.
        tokenizer: A folder with a transformers tokenizer or a .json written by WordTokenizer.save; None = made from the
            training texts of both languages.
        vocabulary: Ids of a byte-pair vocabulary trained on both languages, where tokenizer is None; None = their words
            in lower case without punctuation.
        min_count: Words that occur less often become <unk>; only where words are the vocabulary.
        lowercase: Whether both languages are put in lower case.
        seed: Of the order of sentences and of the readers to learn from.
    """

    def __init__(
        self,
        source: TextSource | None = None,
        batch_size: int = 16,
        first: int = 1,
        spoken: bool = False,
        largest_lag: int = 6,
        straying: float = 0.5,
        max_words: int = 40,
        tokenizer: str | None = None,
        vocabulary: int | None = None,
        min_count: int = 1,
        lowercase: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        least = {"batch_size": (batch_size, 1), "first": (first, 0), "largest_lag": (largest_lag, 1)}
        for name, (given, smallest) in (least | {"max_words": (max_words, 1), "min_count": (min_count, 1)}).items():
            if given < smallest:
                raise ValueError(
                    f"SimultaneousTranslation: got {name} {given}, expected at least {smallest}. Correct the recipe."
                )
        if not 0 <= straying <= 1:
            raise ValueError(
                f"SimultaneousTranslation: got straying {straying}, expected a share from 0 to 1. Correct the recipe."
            )
        self.source = source if source is not None else VerbLast()
        self.batch_size, self.first, self.spoken, self.seed = batch_size, first, spoken, seed
        self.largest_lag, self.straying, self.max_words = largest_lag, straying, max_words
        self.tokenizer_name, self.vocabulary, self.min_count = tokenizer, vocabulary, min_count
        self.lowercase = lowercase

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """The examples by split, checked."""
        return checked_splits(self.source, self._lowered)

    @cached_property
    def tokenizer(self) -> WithSymbols:
        """The words of both languages, and READ."""
        texts = [text for example in self.examples["train"] for text in (example.prompt, *example.references)]
        return WithSymbols(text_tokenizer(self.tokenizer_name, self.vocabulary, texts, self.min_count), [READ])

    def facts(self) -> TaskFacts:
        rows = self._rows["train"]
        two = [rows[i % len(rows), 0] for i in range(2)]
        references = tuple(example.references for example in self.examples["train"])
        speaker = Speaker(self.tokenizer.id(READ), self.first, self.spoken)
        return TaskFacts(self.tokenizer, references if any(references) else (), self._collate(two), speaker)

    def metrics(self, stage: str) -> Metric:
        folder = self.trainer.log_dir if self.trainer is not None else None
        return SimultaneousMetrics(
            (self.tokenizer.id(READ),),
            self.first,
            self.tokenizer.decode,
            folder=None if folder is None else Path(folder) / "simuleval",
            log=stage == "test",
        )

    def splits(self) -> dict[str, Sentences]:
        return self._rows

    def serving(self) -> Serving:
        name = type(self.source).__name__
        return Serving(name, "sentences", FILES, self._collate, self.batch_size, self.seed)

    @property
    def _collate(self) -> Collate:
        return Collate(self.tokenizer.pad, self.first, self.spoken)

    @cached_property
    def _rows(self) -> dict[str, Sentences]:
        way = Way(
            self.first, self.spoken, self.tokenizer.id(READ), self.tokenizer.eos, self.largest_lag, self.straying,
            self.max_words, self.seed,
        )  # fmt: skip
        rows, group = {}, 0
        for split, examples in self.examples.items():
            rows[split] = Sentences(examples, group, self.tokenizer, way, held_out=split != "train")
            group += len(examples)
        return rows

    def _lowered(self, example: Example) -> Example:
        if not self.lowercase:
            return example
        references = tuple(text.lower() for text in example.references)
        return Example(example.id, example.prompt.lower(), references, example.columns)

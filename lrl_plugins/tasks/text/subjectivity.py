"""Is a sentence objective or subjective? A label with a rationale before it that nobody has written down."""

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Literal, TypeAlias

from torchmetrics import Metric

from lrl_core.tokenizer import Tokenizer, WordTokenizer, words
from lrl_plugins.tasks.corpus import Answers, Corpus, mean
from lrl_plugins.tasks.files import json_lines
from lrl_plugins.tasks.text.checked import checked_splits
from lrl_plugins.tasks.text.hub import HubDataset
from lrl_plugins.tasks.text.layout import Layout
from lrl_plugins.tasks.text.opinions import MadeUpOpinions
from lrl_plugins.tasks.text.sources import Example, JsonLines, TextSource
from lrl_plugins.tasks.text.task import Settings, TextTask
from lrl_plugins.tasks.tokenizers import make_tokenizer

__all__ = ["HubDataset", "JsonLines", "MadeUpOpinions", "Subjectivity", "TextSource"]

_BRACES = re.compile(r"\{\w*\}")
Taught: TypeAlias = Literal["label", "rationale", "text"]


class Subjectivity(TextTask):
    """Say whether a sentence is objective or subjective. Without arguments: made-up sentences, nothing to download.

    The prompt X is the sentence with the words of `template`; an episode is a rationale Z, or the label itself; the
    column `after` of the examples, `so objective`, is the text Y that should follow a rationale, null where the label
    is not told (Hu et al. 2024, arXiv 2310.04363, section 4.3, on the sentences of Pang and Lee 2004). The first
    reference of a row is its label. Held-out metrics: accuracy, where the last label that is named counts as said, and
    answered, the share that name one.

    Few labels may be told: `labelled`. The other training sentences have no part in "label" and "rationale"; in "text"
    they are learnt from without their labels. The vocabulary is always that of all training sentences, so that runs
    with few labels can start from a model of all sentences.

    Args:
        source: Where sentences and labels come from: JsonLines, HubDataset, MadeUpOpinions or a class of your own; None
            = MadeUpOpinions().
        labelled: Training sentences whose label is told: how many, as many of each label as can be, or a JSON Lines
            file whose field `text` lists them (sentences of val among them become training sentences); None = all. 0
            only where whole texts are taught.
        labels: The labels as the source writes them.
        taught: What is learnt from people: the label (`so objective`, where `after` says so); a rationale, that is
            telling words of the sentence, once alone and once with the label behind it; or, with an empty prompt, the
            whole text: sentence, template, telling words and, where it is told, the label.
        telling: Telling words per rationale: those of the sentence that are rarest among all sentences, of those that
            occur at least `min_count` times, in their order.
        batch_size: Prompts per step and rank.
        references_per_prompt: Answers to learn from per prompt and epoch; from epoch to epoch they take turns.
        template: Wording of the prompt: `{prompt}` and other columns of the row stand in braces.
        after: Wording of the label behind a rationale.
        max_prompt_length: Longest prompt in tokens; words of longer ones are left out, those of the template stay.
        max_length: Longest target in tokens, EOS counted; longer ones are cut.
        tokenizer: A folder with a transformers tokenizer or a .json written by WordTokenizer.save; None = the words of
            the training sentences, those of `after` and of the labels first: ids from 4 on, in this order.
        min_count: Words that occur less often become <unk>; only where words are the vocabulary.
        seed: Of the order of prompts and answers and of the choice of labelled sentences.
    """

    def __init__(
        self,
        source: TextSource | None = None,
        labelled: int | str | None = None,
        labels: tuple[str, ...] = ("objective", "subjective"),
        taught: Taught = "label",
        telling: int = 4,
        batch_size: int = 16,
        references_per_prompt: int = 1,
        template: str = "{prompt} this is",
        after: str = "so {label}",
        max_prompt_length: int = 48,
        max_length: int = 12,
        tokenizer: str | None = None,
        min_count: int = 1,
        seed: int = 0,
    ) -> None:
        settings = Settings(
            batch_size, references_per_prompt, "" if taught == "text" else template, max_prompt_length, max_length,
            "right", tokenizer, None, min_count, seed,
        )  # fmt: skip
        super().__init__(source if source is not None else MadeUpOpinions(), settings)
        if len(set(labels)) < 2 or "{label}" not in after:
            raise ValueError(
                f"Subjectivity: got labels {labels} and after {after!r}, expected at least two different labels and a "
                "wording with {label} in it. Correct the recipe."
            )
        self.labelled, self.labels, self.taught, self.telling = labelled, tuple(labels), taught, telling
        self.wording, self.after = Layout(template, max_prompt_length, "right"), after

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """The examples by split, with what is taught as their references."""
        splits = {split: list(map(self._told, own)) for split, own in self._read.items()}
        told = self._labelled(splits["train"] + splits["val"] if isinstance(self.labelled, str) else splits["train"])
        train = splits["train"] + [example for example in splits["val"] if example.id in told]
        if self.taught != "text":
            train = [example for example in train if example.id in told]
        held_out = {
            split: [self._taught(example, True) for example in own if example.id not in told]
            for split, own in splits.items()
            if split != "train"
        }
        return {"train": [self._taught(example, example.id in told) for example in train], **held_out}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The words of all training sentences; the same whatever is labelled or taught."""
        if self.settings.tokenizer is not None:
            return make_tokenizer(self.settings.tokenizer, ())
        fixed = [word for label in self.labels for word in words(self.after.format(label=label))]
        fixed = list(dict.fromkeys([*fixed, *words(_BRACES.sub("", self.wording.template))]))
        often = sorted(self._often, key=lambda word: (-self._often[word], word))
        return WordTokenizer([*fixed, *(word for word in often if word not in fixed)])

    def measure(self, examples: dict[str, Example], test: bool) -> Metric:
        return LabelMetrics({name: example.columns["label"] for name, example in examples.items()}, self.labels)

    @cached_property
    def _read(self) -> dict[str, list[Example]]:
        return checked_splits(self.source, self.prepare)

    @cached_property
    def _often(self) -> dict[str, int]:
        """How often the words of the training sentences occur; those that are in the vocabulary."""
        counts = Counter(word for example in self._read["train"] for word in words(example.prompt))
        return {word: count for word, count in counts.items() if count >= self.settings.min_count}

    def _told(self, example: Example) -> Example:
        """The example with its label as a column of its own."""
        label = example.references[0] if example.references else None
        if label not in self.labels:
            raise ValueError(
                f"{type(self.source).__name__}: got the label {label!r} in example {example.id!r}, expected one of "
                f"{', '.join(self.labels)}. Name the column with the label as references_fields, or set `labels`."
            )
        return replace(example, columns={**example.columns, "label": label})

    def _labelled(self, examples: list[Example]) -> set[str]:
        """Ids of the sentences, among these, whose label is told."""
        if self.labelled is None:
            return {example.id for example in examples}
        if isinstance(self.labelled, str):
            texts = {str(row.get("text")) for _, row in json_lines(self.labelled, "Subjectivity")}
            found, wanted = {example.id for example in examples if example.prompt in texts}, len(texts)
        else:
            order = list(examples)
            random.Random(f"labelled/{self.settings.seed}").shuffle(order)
            by_label = [[e.id for e in order if e.columns["label"] == label] for label in self.labels]
            turns = [name for turn in _in_turns(by_label) for name in turn]
            found, wanted = set(turns[: self.labelled]), self.labelled
        if len(found) < wanted or not (found or self.taught == "text"):
            raise ValueError(
                f"Subjectivity: got {len(found)} of the {wanted} labelled sentences that {self.labelled!r} asks for, "
                "expected all of them among those to train on, and at least one unless whole texts are taught. "
                "Correct `labelled`."
            )
        return found

    def _taught(self, example: Example, told: bool) -> Example:
        """The example with what is learnt from it as references, and the column `after`."""
        after = self.after.format(label=example.columns["label"]) if told else None
        rationale = " ".join(self.telling_words(example.prompt))
        whole = f"{rationale} {after}" if after else rationale
        lines: tuple[str, ...] = {
            "label": (after or "",),
            "rationale": (rationale, whole),
            "text": (f"{self.wording.fill(example, example.prompt)} {whole}",),
        }[self.taught]
        return replace(example, references=lines, columns={**example.columns, "after": after})

    def telling_words(self, text: str) -> list[str]:
        """The rarest words of a text that the vocabulary has, each once, in their order."""
        known = list(dict.fromkeys(word for word in words(text) if word in self._often))
        rarest = set(sorted(known, key=lambda word: (self._often[word], word))[: self.telling])
        return [word for word in known if word in rarest]


class LabelMetrics(Corpus):
    """accuracy: the share of answers whose last label is right; answered: the share that name a label at all.

    Args:
        right: The label of each prompt by id.
        labels: All labels, one word each.
    """

    needs_references = False

    def __init__(self, right: dict[str, str], labels: Iterable[str]) -> None:
        super().__init__()
        self.right, self.labels = right, frozenset(labels)

    def _scores(self, rows: Answers) -> dict[str, float]:
        said = {name: [word for word in words(text) if word in self.labels] for name, (text, _) in rows.items()}
        right = [float(bool(named) and named[-1] == self.right[name]) for name, named in said.items()]
        return {"accuracy": mean(right), "answered": mean([float(bool(named)) for named in said.values()])}


def _in_turns(lists: list[list[str]]) -> list[list[str]]:
    """The first of every list, the second of every list, and so on."""
    longest = max(map(len, lists))
    return [[own[i] for own in lists if i < len(own)] for i in range(longest)]

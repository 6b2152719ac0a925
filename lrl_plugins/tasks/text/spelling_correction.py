"""The spelling task: lines with wrong characters, and what they should have been."""

import random
from dataclasses import replace
from functools import cached_property

from torchmetrics import Metric

from lrl_core.metrics.edit_distance import edit_distances
from lrl_core.tokenizer import Tokenizer
from lrl_plugins.tasks.corpus import Answers, Corpus, mean
from lrl_plugins.tasks.text.characters import CharacterTokenizer
from lrl_plugins.tasks.text.hub import HubDataset
from lrl_plugins.tasks.text.made_up import MadeUpStories
from lrl_plugins.tasks.text.plain import PlainText
from lrl_plugins.tasks.text.sources import Example, JsonLines, Parallel, TextSource
from lrl_plugins.tasks.text.task import Settings, TextTask

__all__ = ["HubDataset", "JsonLines", "MadeUpStories", "Parallel", "PlainText", "SpellingCorrection", "TextSource"]

LETTERS = "abcdefghijklmnopqrstuvwxyz "


class SpellingCorrection(TextTask):
    """Write a line as it was before characters of it were replaced at random (Bahdanau et al. 2017, section 5.1).

    Without arguments: lines from made-up tiny stories, nothing to download. The clean line is a piece of each example's
    first answer, in lower case; tokens are single characters. Held-out metrics: CER, the character error rate of the
    corpus, WER, that of words, and exact, the share of lines without a mistake.

    Every line is one of `batch_size` per step and rank, once per epoch, always with the same mistakes.

    Args:
        source: Where the lines come from, the answers of JsonLines, Parallel, HubDataset, PlainText, MadeUpStories or a
            class of your own; None = MadeUpStories(train=10000).
        noise: Chance of each character to be replaced by one of a to z and space (perhaps itself), in (0, 1].
        characters: Length of the piece that is taken of a line; shorter lines are taken whole.
        batch_size: Lines per step and rank.
        seed: Of pieces, mistakes and order.
    """

    def __init__(
        self,
        source: TextSource | None = None,
        noise: float = 0.3,
        characters: int = 10,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        if not 0 < noise <= 1 or characters < 1:
            raise ValueError(
                f"SpellingCorrection: got noise {noise} and characters {characters}; expected a chance in (0, 1] and a "
                "number of characters >= 1. Correct the recipe."
            )
        self.noise, self.characters = noise, characters
        longest = characters + 1  # the end token
        settings = Settings(batch_size, 1, "{prompt}", characters, longest, "right", None, None, 1, seed)
        super().__init__(MadeUpStories(train=10000) if source is None else source, settings)

    def prepare(self, example: Example) -> Example:
        """A piece of the first answer, and as the prompt the same with mistakes."""
        line = " ".join(example.references[0].lower().split()) if example.references else ""
        if not line:
            raise ValueError(
                f"SpellingCorrection: got no answer in example {example.id}; expected a line to spoil, the first. "
                "Tell the source where the texts stand (references_fields of JsonLines), or leave such rows out."
            )
        draw = random.Random(f"spelling/{self.settings.seed}/{example.id}")
        start = draw.randrange(max(1, len(line) - self.characters + 1))
        clean = line[start : start + self.characters].strip() or line.split()[0][: self.characters]
        spoilt = "".join(draw.choice(LETTERS) if draw.random() < self.noise else letter for letter in clean)
        return replace(example, prompt=spoilt, references=(clean,))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Characters to ids and back."""
        clean = (reference for example in self.examples["train"] for reference in example.references)
        return CharacterTokenizer([LETTERS, *clean])

    def measure(self, examples: dict[str, Example], test: bool) -> Metric:
        return SpellingMetrics()


class SpellingMetrics(Corpus):
    """CER and WER, edits over the number of right characters and words in the corpus, and exact, the share of lines."""

    higher_is_better = False

    def _scores(self, rows: Answers) -> dict[str, float]:
        said, wanted = [said for said, _ in rows.values()], [own[0] for _, own in rows.values()]
        words, right = [text.split() for text in said], [text.split() for text in wanted]
        return {
            "CER": float(edit_distances(said, wanted).sum()) / max(1, sum(map(len, wanted))),
            "WER": float(edit_distances(words, right).sum()) / max(1, sum(map(len, right))),
            "exact": mean([float(one == other) for one, other in zip(said, wanted, strict=True)]),
        }

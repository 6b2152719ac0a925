"""ROUGE as a reward."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias, get_args

from lrl_core.interfaces import Reward
from lrl_core.metrics.ngrams import Ngram, ngrams_of
from lrl_core.metrics.recent import Recent
from lrl_core.metrics.rouge import Overlap, rouge_l, rouge_l_overlaps, rouge_n
from lrl_core.tokenizer import words
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import each_against_references, under

Measure: TypeAlias = Literal["f1", "precision", "recall"]
"""Which side counts: what was said (precision), what was wanted (recall) or both."""
Split: TypeAlias = Literal["words", "rouge_score"]
"""How texts become words: letters, digits and apostrophes of any language, or as in the rouge_score package."""

_VARIANT = re.compile(r"rouge([1-9]|L|L_coco)")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_STEMMED_FROM = 4
"""Shorter words are not stemmed, as in the original ROUGE."""


class ROUGE(Reward):
    """ROUGE of every episode against its prompt's references, in [0, 1]; the best reference counts.

    Lin 2004. The texts are taken as one sentence (no ROUGE-Lsum). With `tokens: rouge_score` the numbers are those of
    the rouge_score package, which tables of summarisation report; it drops every letter outside a-z. The variant
    rougeL_coco is that of the COCO caption evaluation: an F-measure with beta 1.2, whose precision and recall may
    come from different references. rouge4 with recall is the reward of MIXER (Ranzato et al. 2016, arXiv:1511.06732).

    Args:
        variant: rouge1 to rouge9 (n-grams), rougeL (longest common subsequence) or rougeL_coco.
        measure: f1, precision or recall; rougeL_coco has f1 only.
        stem: Whether words are reduced to their Porter stems first; English only, needs the package nltk.
        tokens: words (lower-cased words of any language) or rouge_score.
    """

    concurrent = True

    def __init__(
        self, variant: str = "rougeL", measure: Measure = "f1", stem: bool = False, tokens: Split = "words"
    ) -> None:
        super().__init__()
        if not _VARIANT.fullmatch(variant):
            raise ValueError(
                f"ROUGE: variant is {variant!r}; expected rouge1 to rouge9, rougeL or rougeL_coco. Correct the recipe."
            )
        for name, value, expected in (("measure", measure, get_args(Measure)), ("tokens", tokens, get_args(Split))):
            if value not in expected:
                listed = ", ".join(expected)
                raise ValueError(f"ROUGE: {name} is {value!r}; expected one of {listed}. Correct the recipe.")
        if variant == "rougeL_coco" and measure != "f1":
            raise ValueError(
                f"ROUGE: measure is {measure!r} with variant rougeL_coco; expected f1. Take rougeL for {measure}."
            )
        self.variant, self.measure, self.stem, self.tokens = variant, measure, stem, tokens
        self._stemmer = _porter() if stem else None
        self._split: Recent[tuple[str, ...], list[list[str]]] = Recent(1 << 15)
        self._counted: Recent[tuple[str, ...], list[Counter[Ngram]]] = Recent()

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        by_order = not self.variant.startswith("rougeL")
        return under(self.variant, each_against_references(self, rollout, self._ngrams if by_order else self._longest))

    def _ngrams(self, text: str, references: tuple[str, ...]) -> float:
        n = int(self.variant[-1])
        wanted = self._counted.get(references, lambda: [ngrams_of(self._words(own), n) for own in references])
        said = ngrams_of(self._words(text), n)
        return self._best(rouge_n(said, reference) for reference in wanted)

    def _longest(self, text: str, references: tuple[str, ...]) -> float:
        wanted = self._split.get(references, lambda: [[*map(sys.intern, self._words(own))] for own in references])
        said = self._words(text)
        if self.variant == "rougeL_coco":
            return rouge_l(said, wanted)
        return self._best(rouge_l_overlaps(said, wanted))

    def _best(self, overlaps: Iterable[Overlap]) -> float:
        return max(getattr(overlap, self.measure) for overlap in overlaps)

    def _words(self, text: str) -> list[str]:
        split = words(text) if self.tokens == "words" else _ASCII_WORD.findall(text.lower())
        if self._stemmer is None:
            return split
        return [self._stemmer(word) if len(word) >= _STEMMED_FROM else word for word in split]


def _porter() -> Callable[[str], str]:
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError as error:
        raise ImportError(
            "ROUGE: stem is True but the package nltk cannot be imported; expected it for Porter stems. "
            "Install nltk, or set stem: false."
        ) from error
    return PorterStemmer().stem

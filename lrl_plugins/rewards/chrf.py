"""chrF and chrF++ as rewards."""

from lrl_core.interfaces import Reward
from lrl_core.metrics.chrf import ChrfCounts, chrf, chrf_counts
from lrl_core.metrics.recent import Recent
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import each_against_references, under


class ChrF(Reward):
    """Sentence chrF of every episode against its best reference, in [0, 1]: overlap of characters, for any language.

    Popović 2015; chrF++ (Popović 2017) with words: 2. Equal to sacrebleu's sentence score divided by 100.

    Args:
        characters: Longest character n-gram.
        words: Longest word n-gram; 0 for chrF, 2 for chrF++.
        beta: Weight of recall against precision; above 1 favours recall.
        lower: Whether case is ignored.
    """

    concurrent = True

    def __init__(self, characters: int = 6, words: int = 0, beta: float = 2.0, lower: bool = False) -> None:
        super().__init__()
        if characters < 1 or words < 0:
            raise ValueError(
                f"ChrF: characters is {characters} and words is {words}; expected at least 1 and at least 0. "
                "The usual values are 6 and 0, for chrF++ 6 and 2."
            )
        if beta <= 0:
            raise ValueError(f"ChrF: beta is {beta}; expected a number > 0 (the usual value is 2).")
        self.characters, self.words, self.beta, self.lower = characters, words, beta, lower
        self._counted: Recent[tuple[str, ...], list[ChrfCounts]] = Recent()

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        return under("ChrF", each_against_references(self, rollout, self._one))

    def _one(self, text: str, references: tuple[str, ...]) -> float:
        wanted = self._counted.get(references, lambda: [self._count(reference) for reference in references])
        return chrf(self._count(text), wanted, self.beta)

    def _count(self, text: str) -> ChrfCounts:
        return chrf_counts(text.lower() if self.lower else text, self.characters, self.words)

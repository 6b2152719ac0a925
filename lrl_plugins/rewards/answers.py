"""Rewards for right answers: 1 or 0, by a rule."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.metrics.answers import after_marker, answered_number, normalised
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import NAN, as_row, once, under
from lrl_plugins.rewards.gold import check_column, texts_and_golds


class ExactMatch(Reward):
    """1 where an episode says one of the right answers, 0 where not, NaN where its example has none.

    Args:
        column: Column of the example that holds the answer (text, number or a list of them); None: the references.
        marker: Only what stands after the last of these in the text is the answer (in the right answers too, where
            they have it), and a text without it is wrong; None: the whole text.
        lower: Whether case is ignored.
        strip_punctuation: Whether punctuation is ignored.
    """

    concurrent = True

    def __init__(
        self,
        column: str | None = None,
        marker: str | None = None,
        lower: bool = True,
        strip_punctuation: bool = True,
    ) -> None:
        super().__init__()
        self.column, self.marker = column, _checked_marker(self, marker)
        self.lower, self.strip_punctuation = lower, strip_punctuation

    def bind(self, facts: TaskFacts) -> None:
        """Refuse a column that the task does not have."""
        check_column(self, facts, self.column)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where there is no right answer."""
        return under("exact_match", _each_answer(self, rollout, self.column, self._one))

    def _one(self, text: str, golds: tuple[str, ...]) -> float:
        if not golds:
            return NAN
        answer = after_marker(text, self.marker)
        if answer is None:
            return 0.0
        return float(self._plain(answer) in {self._plain(self._gold(gold)) for gold in golds})

    def _gold(self, gold: str) -> str:
        answer = after_marker(gold, self.marker)
        return gold if answer is None else answer

    def _plain(self, text: str) -> str:
        return normalised(text, self.lower, self.strip_punctuation)


class NumericAnswer(Reward):
    """1 where the number an episode ends with is right, 0 where it is wrong or missing, NaN where none is known.

    The answer is the first number after the last marker, or the last number of the text without one. Read are signs,
    thousands commas, decimals, exponents, fractions (3/4, 1 1/2, LaTeX's frac) and currency signs; units and percent
    signs are ignored. For GSM8K (Cobbe et al. 2021, arXiv:2110.14168) the marker is "####".

    Args:
        column: Column of the example that holds the number, or a text that ends with it; None: the references, any of
            which may be met.
        marker: What announces the answer; a text without it is wrong. Right answers are read after it where they have
            it. None: the last number counts.
        tolerance: How far the answer may be off, absolutely.
    """

    concurrent = True

    def __init__(self, column: str | None = None, marker: str | None = None, tolerance: float = 1e-6) -> None:
        super().__init__()
        if tolerance < 0:
            raise ValueError(f"NumericAnswer: tolerance is {tolerance}; expected a number >= 0. Usual: 1e-6.")
        self.column, self.marker, self.tolerance = column, _checked_marker(self, marker), tolerance

    def bind(self, facts: TaskFacts) -> None:
        """Refuse a column that the task does not have."""
        check_column(self, facts, self.column)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where no right answer has a number."""
        return under("right_number", _each_answer(self, rollout, self.column, self._one))

    def _one(self, text: str, golds: tuple[str, ...]) -> float:
        read = [answered_number(gold, self.marker if self._has_marker(gold) else None) for gold in golds]
        right = [number for number in read if number is not None]
        if not right:
            return NAN
        answer = answered_number(text, self.marker)
        return float(answer is not None and any(abs(answer - number) <= self.tolerance for number in right))

    def _has_marker(self, gold: str) -> bool:
        return self.marker is not None and self.marker in gold


def _each_answer(
    reward: Reward, rollout: Rollout, column: str | None, score: Callable[[str, tuple[str, ...]], float]
) -> Float[Tensor, " B"]:
    return as_row(once(texts_and_golds(reward, rollout, column), lambda pair: score(*pair)), rollout)


def _checked_marker(reward: Reward, marker: str | None) -> str | None:
    if marker == "":
        name = type(reward).__name__
        raise ValueError(
            f"{name}: marker is empty; expected a text such as '####', or null for none. Correct the recipe."
        )
    return marker

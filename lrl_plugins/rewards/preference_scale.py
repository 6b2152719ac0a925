"""The scale of a preference model's scores: mean 0 and variance 1 over texts of the policy it starts from."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

MOST = 256
"""Texts that the scale is measured on (Ziegler et al. 2019 take as many)."""
_FLAT = 1e-6
"""A smaller spread than this is no spread."""

Asked = tuple[str | None, str]
"""A prompt (None where it is not read) and a text."""


class ReferenceTexts:
    """The newest texts of the reference policy; until there are any, candidates that people compared."""

    def __init__(self) -> None:
        self.texts: list[Asked] = []
        self.drawn = False

    @property
    def full(self) -> bool:
        """Whether new texts of the policy push old ones out."""
        return self.drawn and len(self.texts) >= MOST

    def remember(self, texts: Sequence[Asked], drawn: bool) -> None:
        """Keep the newest.

        Args:
            texts: Oldest first.
            drawn: Whether the reference policy drew them; then candidates are forgotten.
        """
        if drawn < self.drawn or not texts:
            return
        old = self.texts if drawn == self.drawn else []
        self.texts, self.drawn = [*old, *texts][-MOST:], drawn

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"texts": [list(text) for text in self.texts], "drawn": self.drawn}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self.texts, self.drawn = [(prompt, text) for prompt, text in state["texts"]], state["drawn"]


def rescaling(scores: Tensor, mean: float = 0.0, std: float = 1.0) -> tuple[float, float]:
    """Gain and bias that give scores [N] this mean and standard deviation (over N); 1 and a shift where they are equal.

    gain = std / std of the scores, bias = mean - gain * mean of the scores (Ziegler et al. 2019).

    Args:
        scores: Raw ones.
        mean: What is wanted.
        std: What is wanted.
    """
    wide = scores.double()
    spread = float(wide.std(correction=0))
    gain = std / spread if spread > _FLAT else 1.0
    return gain, mean - gain * float(wide.mean())

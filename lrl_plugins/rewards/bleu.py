"""Sentence BLEU as a reward."""

from typing import get_args

import torch

from lrl_core.interfaces import Reward
from lrl_core.metrics.bleu import BleuStatistics, ReferenceCounts, ReferenceLength, Smoothing, bleu
from lrl_core.metrics.recent import Recent
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.texts import texts_and_references, tokenised


class BLEU(Reward):
    """Smoothed sentence BLEU of every episode against its prompt's references, in [0, 1].

    Papineni et al. 2002; smoothing as in Lin and Och 2004 by default. Sentence BLEU, never corpus BLEU: the latter is
    no sum over episodes.

    Args:
        n: Longest n-gram; 4 gives BLEU-4.
        smoothing: What a precision without matches becomes. add_one: one more match and one more n-gram in every order
            but the first. The others: none, floor, exp, add_one_all, coco.
        reference_length: Length the brevity penalty compares with: closest, shortest or average of the references.
        eos: Whether the end token counts as a word, in references and in episodes that ended by themselves.
    """

    def __init__(
        self,
        n: int = 4,
        smoothing: Smoothing = "add_one",
        reference_length: ReferenceLength = "closest",
        eos: bool = False,
    ) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"BLEU: n is {n}; expected at least 1 (the usual value is 4).")
        names = {"smoothing": get_args(Smoothing), "reference_length": get_args(ReferenceLength)}
        for name, value in (("smoothing", smoothing), ("reference_length", reference_length)):
            if value not in names[name]:
                expected = ", ".join(names[name])
                raise ValueError(f"BLEU: {name} is {value!r}; expected one of {expected}. Correct the recipe.")
        self.n, self.smoothing, self.reference_length, self.eos = n, smoothing, reference_length, eos
        self._counted: Recent[tuple[str, ...], ReferenceCounts] = Recent()

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        scores = [self._one(*row) for row in texts_and_references(self, rollout)]
        total = torch.tensor(scores, dtype=torch.float32, device=rollout.tokens.device)
        return RewardSignal(total, parts={f"BLEU_{self.n}": total})

    def _one(self, text: str, ended: bool, references: tuple[str, ...]) -> float:
        if not references:
            return float("nan")

        def count() -> ReferenceCounts:
            return ReferenceCounts.of([tokenised(reference, self.eos) for reference in references], self.n)

        counted = self._counted.get(references, count)
        said = tokenised(text, self.eos and ended)
        return bleu(BleuStatistics.of(said, counted, self.reference_length), self.smoothing)[-1]

"""Sentence BLEU as a reward."""

from collections.abc import Callable
from typing import get_args

import numpy as np
from jaxtyping import Float

from lrl_core.interfaces import Reward
from lrl_core.metrics.bleu import BleuCounter, ReferenceLength, Smoothing, bleu
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import References, all_against_references, under


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

    concurrent = True

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
        self._counter: BleuCounter[References] = BleuCounter(n, reference_length)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        return under(f"BLEU_{self.n}", all_against_references(self, rollout, self.eos, self._scores))

    def _scores(
        self, said: list[list[str]], references: list[References], words: Callable[[References], list[list[str]]]
    ) -> Float[np.ndarray, " N"]:
        return bleu(self._counter.compare(said, references, words), self.smoothing)[:, -1]

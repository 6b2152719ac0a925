"""How well an answer is spelt, as a reward."""

import numpy as np

from lrl_core.interfaces import Reward
from lrl_core.metrics.edit_distance import edit_distances
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import NAN, as_row, distinct, under
from lrl_plugins.rewards.texts import texts_and_references


class CharacterAccuracy(Reward):
    """1 - the character error rate of every episode: 1 says a reference letter for letter, saying nothing gives 0.

    The error rate is the least number of inserted, deleted and replaced characters, white space included, over the
    length of the reference (the task loss of spelling correction, Bahdanau et al. 2017, section 5.1); of several
    references the one that gives most counts. Negative, without a bound, for texts that are much too long.
    """

    concurrent = True

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        asked = ((text, own) for text, _, own in texts_and_references(self, rollout))
        different, which = distinct(asked)
        said = [text for text, own in different for _ in own]
        wanted = [reference for _, own in different for reference in own]
        lengths = np.maximum([len(reference) for reference in wanted], 1)
        scores = iter((1 - edit_distances(said, wanted) / lengths).tolist() if wanted else ())
        best = [max((next(scores) for _ in own), default=NAN) for _, own in different]
        return under("1-CER", as_row([best[i] for i in which], rollout))

"""Rewards for saying something new: within an episode, and among the samples of a prompt."""

from collections import Counter

from lrl_core.interfaces import Reward, Sampler
from lrl_core.metrics.diversity import distinct_n, self_bleu
from lrl_core.tokenizer import words
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import NAN, as_row, distinct, each_text, under
from lrl_plugins.rewards.texts import texts_of


class Repetition(Reward):
    """Minus the share of n-grams in an episode that have occurred in it before: 0 at best, near -1 for a loop.

    Welleck et al. 2020 (arXiv:1908.04319), seq-rep-n. A text of fewer than n words repeats nothing: 0.

    Args:
        n: Length of the n-grams, in words.
    """

    concurrent = True

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.n = _checked_n(self, n, usual=4)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode by itself."""
        return under(f"repetition_{self.n}", each_text(self, rollout, self._one))

    def _one(self, text: str) -> float:
        distinct = distinct_n([words(text)], self.n)
        return 0.0 if distinct is None else distinct - 1


class DistinctN(Reward):
    """Share of distinct n-grams among those of an episode, in [0, 1]; 0 for a text of fewer than n words.

    Li et al. 2016 (arXiv:1510.03055), within an episode instead of over a corpus. Unlike Repetition it pays for
    having n-grams at all, so that saying nothing is no way out.

    Args:
        n: Length of the n-grams, in words.
    """

    concurrent = True

    def __init__(self, n: int = 2) -> None:
        super().__init__()
        self.n = _checked_n(self, n, usual=2)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode by itself."""
        return under(f"distinct_{self.n}", each_text(self, rollout, self._one))

    def _one(self, text: str) -> float:
        return distinct_n([words(text)], self.n) or 0.0


class SelfBLEU(Reward):
    """Minus BLEU of an episode against the other samples of its prompt: 0 for something new, -1 for the same again.

    Self-BLEU of Zhu et al. 2018 (arXiv:1802.01886), within the samples of one prompt: all the others are the
    references, a precision without matches counts as 0.1 matches, and orders for which a text is too short are left
    out. A sample without others cannot be judged (NaN); a recipe that draws one sample per prompt is refused.

    Args:
        n: Longest n-gram, in words.
    """

    concurrent = True
    rowwise = False
    comparable = False  # a rival's single sample has no others

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.n = _checked_n(self, n, usual=4)

    def check(self, sampler: Sampler) -> None:
        """Refuse a decoder that draws one sample per prompt."""
        if sampler.decoder is not None and sampler.decoder.samples < 2:
            raise ValueError(
                f"SelfBLEU got the decoder {type(sampler.decoder).__name__} with samples: {sampler.decoder.samples}; "
                "expected at least 2 samples per prompt. Set decoder.init_args.samples, or leave SelfBLEU out."
            )

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode against the others of its group; NaN where there are none."""
        texts = texts_of(self, rollout)
        groups = distinct(rollout.prompts.group.tolist())[1]
        sizes = Counter(groups)
        rows = [row for row, group in enumerate(groups) if sizes[group] > 1]
        scores = [NAN] * len(rollout)
        if rows:
            said = [words(texts[row]) for row in rows]
            for row, score in zip(rows, self_bleu(said, self.n, groups=[groups[row] for row in rows]), strict=True):
                scores[row] = -score
        return under(f"self_BLEU_{self.n}", as_row(scores, rollout))


def _checked_n(reward: Reward, n: int, usual: int) -> int:
    if n < 1:
        raise ValueError(f"{type(reward).__name__}: n is {n}; expected at least 1 (the usual value is {usual}).")
    return n

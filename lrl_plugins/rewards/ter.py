"""Translation edit rate as a reward, by sacrebleu."""

from lrl_core.interfaces import Reward
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import each_against_references, under


class TER(Reward):
    """1 - TER of every episode: 1 says a reference word for word, 0 that as many edits are needed as it has words.

    Snover et al. 2006, computed by sacrebleu (which must be installed): insertions, deletions, substitutions and shifts
    of blocks, over the mean length of the references. Negative, without a bound, for texts that are much too long.

    Args:
        case_sensitive: Whether case counts.
        normalized: Whether punctuation is split from words first, as Tercom's -N does.
        no_punct: Whether punctuation is removed.
        asian_support: With normalized or no_punct: whether Chinese and Japanese are treated too.
    """

    concurrent = True

    def __init__(
        self,
        case_sensitive: bool = False,
        normalized: bool = False,
        no_punct: bool = False,
        asian_support: bool = False,
    ) -> None:
        super().__init__()
        try:
            from sacrebleu.metrics import ter
        except ImportError as error:
            raise ImportError(
                "TER: the package sacrebleu cannot be imported; expected it for the edit rate. "
                "Install sacrebleu, or take another reward, such as ChrF."
            ) from error
        self._rate = ter.TER(
            normalized=normalized, no_punct=no_punct, asian_support=asian_support, case_sensitive=case_sensitive
        )

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        return under("1-TER", each_against_references(self, rollout, self._one))

    def _one(self, text: str, references: tuple[str, ...]) -> float:
        return 1 - self._rate.sentence_score(text, list(references)).score / 100

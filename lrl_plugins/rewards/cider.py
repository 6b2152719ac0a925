"""CIDEr and CIDEr-D as rewards, with document frequencies of the training references."""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.metrics.cider import CiderScorer, DocumentFrequencies, document_frequencies
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import References, all_against_references, under
from lrl_plugins.rewards.texts import END, tokenised


class _Consensus(Reward):
    """What both have in common: where document frequencies come from and that they travel in the checkpoint."""

    concurrent = True

    def __init__(self, path: str | None, n: int, eos: bool) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"{type(self).__name__}: n is {n}; expected at least 1 (the usual value is 4).")
        self.path, self.n, self.eos = path, n, eos
        self._frequencies: DocumentFrequencies | None = None
        self._scorer: CiderScorer[References] | None = None
        self._packed: dict[str, Any] | None = None  # what a checkpoint holds; made for the first one

    @abstractmethod
    def _make_scorer(self, frequencies: DocumentFrequencies) -> CiderScorer[References]:
        """The scorer with this reward's settings."""

    def bind(self, facts: TaskFacts) -> None:
        """Take the document frequencies from the file, or count them over the training references."""
        if self.path is not None:
            if not Path(self.path).is_file():
                raise FileNotFoundError(
                    f"{type(self).__name__}: document_frequencies is {self.path!r}; expected a file written by "
                    "DocumentFrequencies.to_json. Correct the path, or leave it out to count over the training data."
                )
            return self._use(DocumentFrequencies.from_json(self.path))
        documents = [[tokenised(text, self.eos) for text in row] for row in facts.references if row]
        return self._use(document_frequencies(documents, self.n))

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode on the scale 0 to 10; NaN where a prompt has no references."""
        if self._scorer is None:
            raise RuntimeError(
                f"{type(self).__name__} has no document frequencies yet; expected bind(facts) before score(). "
                "The trainer binds every component; in a script, call bind yourself."
            )
        return under(type(self).__name__, all_against_references(self, rollout, self.eos, self._scorer.score))

    def _use(self, frequencies: DocumentFrequencies) -> None:
        name = type(self).__name__
        if frequencies.documents < 2:
            raise ValueError(
                f"{name} got document frequencies of {frequencies.documents} prompts with references; expected at "
                "least 2, for with fewer every score is 0. Use a task whose training prompts have references, or "
                "name a file: document_frequencies."
            )
        if ((END,) in frequencies.counts) != self.eos:
            raise ValueError(
                f"{name} got document frequencies counted {'without' if self.eos else 'with'} the end token while "
                f"eos is {self.eos}; expected both alike. Set eos: {not self.eos}, or count them again."
            )
        if frequencies.n < self.n:
            raise ValueError(
                f"{name} got document frequencies up to {frequencies.n}-grams while n is {self.n}; expected at least "
                f"{self.n}-grams. Count them again, or set n: {frequencies.n}."
            )
        self._frequencies, self._scorer, self._packed = frequencies, self._make_scorer(frequencies), None

    def get_extra_state(self) -> dict[str, Any]:
        """The document frequencies, so that a resumed or exported run scores as before."""
        if self._frequencies is None:
            return {}
        if self._packed is None:
            packed = self._frequencies.pack()
            self._packed = packed | {name: _as_tensors(packed[name]) for name in ("ngrams", "counts")}
        return dict(self._packed)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the document frequencies from a checkpoint."""
        if state:
            lists = {name: [values.tolist() for values in state[name]] for name in ("ngrams", "counts")}
            self._use(DocumentFrequencies.unpack(state | lists))


class CIDErD(_Consensus):
    """CIDEr-D of every episode against its prompt's references, 0 to 10: the reward of self-critical captioning.

    Rennie et al. 2017 (arXiv:1612.00563) with the conventions of the code that reported the numbers: the end token is
    counted like a word, in the references and in episodes that ended by themselves, so that a caption cut off by the
    length limit loses those matches. Document frequencies are those of the training references; they are stored in
    the checkpoint.

    Args:
        document_frequencies: JSON file of document frequencies; None counts them over the training references.
        n: Longest n-gram.
        sigma: Width of the penalty on the difference in length.
        eos: Whether the end token counts. Without it captions learn to end in "a" or "with a".
    """

    def __init__(
        self, document_frequencies: str | None = None, n: int = 4, sigma: float = 6.0, eos: bool = True
    ) -> None:
        super().__init__(document_frequencies, n, eos)
        if sigma <= 0:
            raise ValueError(f"CIDErD: sigma is {sigma}; expected a number > 0 (the usual value is 6).")
        self.sigma = sigma

    def _make_scorer(self, frequencies: DocumentFrequencies) -> CiderScorer[References]:
        return CiderScorer(frequencies, self.n, self.sigma, clip=True)


class CIDEr(_Consensus):
    """CIDEr of every episode against its prompt's references, 0 to 10; without clipping it can be gamed by repetition.

    Vedantam et al. 2015 (arXiv:1411.5726). For training take CIDErD; this is the plain definition, for comparison.

    Args:
        document_frequencies: JSON file of document frequencies; None counts them over the training references.
        n: Longest n-gram.
        eos: Whether the end token counts, as for CIDErD.
    """

    def __init__(self, document_frequencies: str | None = None, n: int = 4, eos: bool = True) -> None:
        super().__init__(document_frequencies, n, eos)

    def _make_scorer(self, frequencies: DocumentFrequencies) -> CiderScorer[References]:
        return CiderScorer(frequencies, self.n, sigma=None, clip=False)


def _as_tensors(lists: Iterable[list[int]]) -> list[torch.Tensor]:
    return [torch.tensor(values, dtype=torch.int32) for values in lists]

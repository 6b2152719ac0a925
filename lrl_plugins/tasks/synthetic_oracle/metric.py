"""What the oracle thinks of the policy's sentences."""

import torch
from torch import Tensor

from lrl_core.reports import Answer, EpisodeMetric
from lrl_plugins.tasks.corpus import mean, scored_together
from lrl_plugins.tasks.synthetic_oracle.oracle import Oracle


class OracleMetrics(EpisodeMetric):
    """oracle_nll: minus the oracle's log-probability per token of the policy's own sentences, in nats; less is better.

    That is the "oracle NLL" of Yu et al. 2017. It cannot see what the policy leaves out: one that says a single
    probable sentence has a small one. The core's `perplexity` looks the other way: it is exp of the policy's negative
    log-likelihood per token of the oracle's held-out sentences. distinct_sentences: share of the sentences that differ
    from all others.

    Args:
        oracle: Who judges.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    def __init__(self, oracle: Oracle) -> None:
        # Sentences are Python objects, which torchmetrics cannot gather: `compute` does it.
        super().__init__(sync_on_compute=False)
        self.oracle = oracle
        self._sentences: dict[str, tuple[int, ...]] = {}

    def update(self, answers: list[Answer]) -> None:
        """Add sentences; of several with one id the first counts: samplers repeat some to fill a rank's last batch."""
        for answer in answers:
            self._sentences.setdefault(answer.id, answer.tokens)

    def compute(self) -> dict[str, Tensor]:
        """Scores of all sentences, the same on every rank; empty before any has been added."""
        return scored_together(self._sentences, lambda rows: self._scores(list(rows.values())), self)

    def forward(self, answers: list[Answer]) -> None:
        """Add sentences; a batch on its own has no scores."""
        self.update(answers)

    def reset(self) -> None:
        """Forget all sentences."""
        super().reset()
        self._sentences = {}

    def _scores(self, sentences: list[tuple[int, ...]]) -> dict[str, float]:
        by_length: dict[int, list[tuple[int, ...]]] = {}
        for sentence in sentences:
            by_length.setdefault(len(sentence), []).append(sentence)
        device = self.oracle.embedding.device
        losses = [self.oracle.nll(torch.tensor(lines, device=device)) for lines in by_length.values()]
        tokens = sum(loss.numel() for loss in losses)
        return {
            "oracle_nll": sum(loss.double().sum().item() for loss in losses) / tokens,
            "distinct_sentences": mean([float(n == 1) for n in _times(sentences)]),
        }


def _times(sentences: list[tuple[int, ...]]) -> list[int]:
    """How often each sentence was said, sentence by sentence."""
    counts: dict[tuple[int, ...], int] = {}
    for sentence in sentences:
        counts[sentence] = counts.get(sentence, 0) + 1
    return [counts[sentence] for sentence in sentences]

"""How good and how late the translations of a whole corpus are."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lrl_core.reports import Answer, EpisodeMetric
from lrl_plugins.tasks.corpus import mean, scored_together
from lrl_plugins.tasks.simultaneous_translation import metrics
from lrl_plugins.tasks.simultaneous_translation.instances import Instance, write_instances
from lrl_plugins.tasks.simultaneous_translation.path import words_with_delays

LATENCIES = {
    "AP": metrics.average_proportion,
    "AL": metrics.average_lagging,
    "LAAL": metrics.length_adaptive_average_lagging,
    "DAL": metrics.differentiable_average_lagging,
    "CW": metrics.consecutive_wait,
    "longest_wait": metrics.longest_wait,
}
"""The latency metrics by the names that they have in logs."""


@dataclass(frozen=True)
class _Translated:
    """What is kept of an answer: small, since it travels between ranks."""

    source: str
    prediction: str
    reference: str
    delays: tuple[float, ...]
    reads: int
    actions: int


class SimultaneousMetrics(EpisodeMetric):
    """BLEU (0 to 100) against AP, AL, LAAL, DAL, CW and longest_wait in source words, of the whole corpus.

    BLEU is sacrebleu's with its 13a tokenisation, against the first reference; all else is the mean over sentences of
    what `metrics.py` defines. Sentences without a source word or a written word have no latency: they are counted in
    `empty`, and in BLEU. reads_share is the share of READs among all that the policy chose, end tokens included.

    Args:
        reads: Token ids that make one more word of the source visible.
        first: Source words visible before the first token.
        decode: Text of token ids, special ones left out.
        folder: Where instances.log is written, for SimulEval; a folder of its own, because SimulEval writes its
            config.yaml there. None: nowhere.
        log: Whether it is written; for the test, say, and not for every validation.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(
        self,
        reads: tuple[int, ...],
        first: int,
        decode: Callable[[Sequence[int]], str],
        folder: Path | None = None,
        log: bool = False,
    ) -> None:
        # Rows are Python objects, which torchmetrics cannot gather: `compute` does it.
        super().__init__(sync_on_compute=False)
        self.reads, self.first, self.decode = frozenset(reads), first, decode
        self.path = folder / "instances.log" if folder is not None and log else None
        self._rows: dict[str, _Translated] = {}

    def update(self, answers: list[Answer]) -> None:
        """Add the answers that this rank gave; of several with one id only the first counts.

        Args:
            answers: Of this rank; the source is the column `source` of the example, words apart by white space.
        """
        for answer in answers:
            if answer.id not in self._rows:
                self._rows[answer.id] = self._row(answer)

    def compute(self) -> dict[str, Tensor]:
        """Scores of the corpus, the same on every rank; empty before any answer has been added."""
        return scored_together(self._rows, self._scores, self)

    def forward(self, answers: list[Answer]) -> None:
        """Add answers; a batch on its own is no corpus and has no scores."""
        self.update(answers)

    def reset(self) -> None:
        """Forget all answers."""
        super().reset()
        self._rows = {}

    def _row(self, answer: Answer) -> _Translated:
        source, reference = _texts(answer)
        # What the policy did not choose is the source itself, where its words are spoken into the line.
        chosen = answer.chosen or (True,) * len(answer.tokens)
        own = [token for token, mine in zip(answer.tokens, chosen, strict=True) if mine]
        words, delays = words_with_delays(own, self.reads, self.first, len(source), self.decode)
        return _Translated(
            " ".join(source),
            " ".join(words),
            " ".join(reference),
            tuple(delays) if source else (),
            sum(token in self.reads for token in own),
            len(own),
        )

    def _scores(self, rows: dict[str, _Translated]) -> dict[str, float]:
        ordered = sorted(rows.items(), key=lambda pair: _with_numbers(pair[0]))
        sentences = [
            Instance(index, row.source, row.prediction, row.reference, row.delays)
            for index, (_, row) in enumerate(ordered)
        ]
        if self.path is not None:
            write_instances(self.path, sentences)
        reads, actions = (sum(row.reads for row in rows.values()), sum(row.actions for row in rows.values()))
        return corpus_scores(sentences) | {"reads_share": reads / actions if actions else float("nan")}


def corpus_scores(sentences: Sequence[Instance]) -> dict[str, float]:
    """BLEU, the mean latencies (NaN where no sentence has a word) and `empty`, how many sentences have none.

    Args:
        sentences: At least one.
    """
    timed = [row for row in sentences if row.delays]
    return {
        "BLEU": corpus_bleu([row.prediction for row in sentences], [row.reference for row in sentences]),
        **{name: _mean(latency, timed) for name, latency in LATENCIES.items()},
        "empty": float(len(sentences) - len(timed)),
    }


def corpus_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a corpus, 0 to 100, by sacrebleu: 13a tokenisation, exponential smoothing, as SimulEval has it.

    Args:
        predictions: What was written.
        references: One for each.
    """
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="13a").corpus_score(list(predictions), [list(references)]).score


def _mean(latency: Callable[[Sequence[float], int, int], float], sentences: Iterable[Instance]) -> float:
    own = [latency(row.delays, row.source_length, row.reference_length) for row in sentences]
    return mean(own) if own else float("nan")


def _texts(answer: Answer) -> tuple[list[str], list[str]]:
    """The words of the source and of the reference."""
    source = answer.example.get("source")
    if not isinstance(source, str):
        raise ValueError(
            f"SimultaneousMetrics: got the columns {sorted(answer.example)} with {answer.id!r}, expected a text in the "
            "column `source`. Keep the source in the examples of the prompts."
        )
    reference = answer.references[0].split() if answer.references else []
    if not reference:
        raise ValueError(
            f"SimultaneousMetrics: got no reference with a word for {answer.id!r}, expected a human translation. "
            "Leave such rows out of the evaluation."
        )
    return source.split(), reference


def _with_numbers(name: str) -> list[tuple[int, str]]:
    """Sorts "test-2" before "test-10", so that the log has the order of numbered rows."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]

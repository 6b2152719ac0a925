"""SimulEval's log of a translated test set: one JSON object per sentence, which its `--score-only` scores again."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrl_plugins.tasks.files import json_lines


@dataclass(frozen=True)
class Instance:
    """One translated sentence; source, prediction and reference are words with one space between them."""

    index: int
    """Its place in the test set, from 0."""
    source: str
    """What was to be translated."""
    prediction: str
    """What was written."""
    reference: str
    """What a person wrote."""
    delays: tuple[float, ...]
    """For every word of the prediction: source words read when it was complete. () where the source has no word."""

    @property
    def source_length(self) -> int:
        """Words of the source."""
        return len(self.source.split())

    @property
    def reference_length(self) -> int:
        """Words of the reference."""
        return len(self.reference.split())

    def row(self) -> dict[str, Any]:
        """What stands in the log; text needs no time to be heard, so `elapsed` is 0, as SimulEval has it."""
        return {
            "index": self.index,
            "prediction": self.prediction,
            "delays": list(self.delays),
            "elapsed": [0] * len(self.delays),
            "prediction_length": len(self.prediction.split()),
            "reference": self.reference,
            "source": self.source,
            "source_length": self.source_length,
        }


def write_instances(path: str | Path, rows: Iterable[Instance]) -> None:
    """Write a log; `simuleval --score-only --output FOLDER --source-type text --target-type text` reads it.

    Args:
        path: The file, which SimulEval wants to be called instances.log, in a folder of its own: it writes its
            config.yaml beside it.
        rows: The sentences.
    """
    lines = [json.dumps(row.row(), ensure_ascii=False) + "\n" for row in rows]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(lines), encoding="utf-8")


def read_instances(path: str | Path) -> list[Instance]:
    """The sentences of a log of text-to-text translation, ours or SimulEval's; of two with one index the later.

    Args:
        path: The file.
    """
    rows = [_instance(row, f"line {number} of {path}") for number, row in json_lines(str(path), "read_instances")]
    if not rows:
        raise ValueError(
            f"read_instances: got {path}, which is empty, expected one sentence per line. Run the test again."
        )
    return list({row.index: row for row in rows}.values())


def _instance(row: dict[str, Any], where: str) -> Instance:
    wanted: dict[str, type] = {"index": int, "source": str, "prediction": str, "reference": str, "delays": list}
    wrong = [name for name, kind in wanted.items() if not isinstance(row.get(name), kind)]
    if wrong or not all(isinstance(delay, (int, float)) for delay in row["delays"]):
        raise ValueError(
            f"read_instances: got {', '.join(wrong) or 'delays'} missing or of another kind in {where}, expected "
            "index (a number), source, prediction, reference (texts) and delays (numbers). Give the instances.log of "
            "text-to-text translation."
        )
    texts = {name: " ".join(row[name].split()) for name in ("source", "prediction", "reference")}
    instance = Instance(row["index"], **texts, delays=tuple(row["delays"]))
    if (words := len(instance.prediction.split())) != len(instance.delays) and instance.source:
        raise ValueError(
            f"read_instances: got {len(instance.delays)} delays for {words} predicted words in {where}, expected one "
            "per word. Log with words as the latency unit."
        )
    return instance

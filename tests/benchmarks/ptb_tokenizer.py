"""CIDEr-D of one training step, Java's tokenizer and pycocoevalcap against ours, on COCO captions: tables in Markdown.

    python tests/benchmarks/ptb_tokenizer.py --data ../shared/data/coco_captions_val2017

The peer does what the usual self-critical training code does: it starts PTBTokenizer for the references and for the
candidates, and scores them by Cider().compute_score. Ours is the reward CIDErD without the end token, its document
frequencies those of the same references, so that both must give the same scores; the largest difference is printed.
"references known" is what a later epoch pays, "first sight" what the first one does. "its tokens known" is the peer
with the references tokenised beforehand: Java for the candidates alone. Rounds are interleaved, times are medians.
Java's own messages go to stderr.
"""

import argparse
import gzip
import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from lrl_core.interfaces import TaskFacts
from lrl_core.metrics.ptb import ptb_words, ptb_words_by_rules
from lrl_core.testing.rewards import example_tokenizer
from lrl_core.tokenizer import words
from lrl_core.types import Prompts, Rollout
from lrl_plugins.rewards.cider import CIDErD

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "coco_captions_val2017"
Captions = dict[int, list[dict[str, str]]]


def episodes(folder: Path, steps: int, candidates: int) -> list[Rollout]:
    """Steps of episodes that say what a person said of another picture, in a policy's spelling."""
    with gzip.open(folder / "references.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = (line for line, _ in zip(lines, range(steps * candidates), strict=False))
        pictures = [tuple(json.loads(line)["captions"]) for line in rows]
    said = [" ".join(words(pictures[i - 1][0])) for i in range(len(pictures))]
    parts = [slice(i, i + candidates) for i in range(0, len(pictures), candidates)]
    return [rollout_of(said[part], pictures[part]) for part in parts]


def rollout_of(texts: Sequence[str], references: Sequence[tuple[str, ...]]) -> Rollout:
    """Episodes of which only texts and references matter."""
    rows = len(texts)
    empty, lengths = torch.zeros(rows, 0), torch.zeros(rows, dtype=torch.long)
    prompts = Prompts(empty.long(), lengths, torch.arange(rows), references=tuple(references))
    return Rollout(prompts, empty.long(), lengths, empty.bool(), empty, lengths.bool(), texts=tuple(texts))


class Peer:
    """PTBTokenizer and Cider, as they are called by hand."""

    def __init__(self) -> None:
        if shutil.which("java") is None:
            raise SystemExit("The peer needs Java: install a Java runtime.")
        try:
            from pycocoevalcap.cider.cider import Cider
            from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
        except ImportError as error:
            raise SystemExit("The peer is missing: pip install pycocoevalcap") from error
        self.tokenizer, self.cider = PTBTokenizer, Cider

    def tokenised(self, texts: Sequence[tuple[str, ...]]) -> dict[int, list[str]]:
        """By Java."""
        rows: Captions = {i: [{"caption": caption} for caption in own] for i, own in enumerate(texts)}
        return self.tokenizer().tokenize(rows)

    def score(self, rollout: Rollout, references: dict[int, list[str]] | None = None) -> Sequence[float]:
        """CIDEr-D of every episode."""
        assert rollout.texts is not None
        assert rollout.prompts.references is not None
        references = references or self.tokenised(rollout.prompts.references)
        said = self.tokenised([(text,) for text in rollout.texts])
        return self.cider().compute_score(references, said)[1]


def bound(rollout: Rollout) -> CIDErD:
    """The reward, with the document frequencies of one step's references."""
    reward = CIDErD(eos=False)
    reward.bind(TaskFacts(example_tokenizer(), rollout.prompts.references or (), rollout.prompts))
    return reward


def seconds(run: Callable[[], object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def every(split: Callable[[str], list[str]], texts: Sequence[str]) -> None:
    """The words of all texts."""
    for text in texts:
        split(text)


def step_table(rollouts: Sequence[Rollout], rounds: int) -> str:
    """Milliseconds of one step, ours and the peer's."""
    peer = Peer()
    times: dict[str, list[float]] = {name: [] for name in ("peer", "peer known", "first sight", "known")}
    difference = 0.0
    for step in range(rounds):
        rollout = rollouts[step % len(rollouts)]
        new, known = bound(rollout), bound(rollout)
        known.score(rollout)
        tokens = peer.tokenised(rollout.prompts.references or ())
        times["peer"].append(seconds(partial(peer.score, rollout)))
        times["known"].append(seconds(partial(known.score, rollout)))
        times["peer known"].append(seconds(partial(peer.score, rollout, tokens)))
        times["first sight"].append(seconds(partial(new.score, rollout)))
        apart = known.score(rollout).total - torch.tensor(peer.score(rollout), dtype=torch.float32)
        difference = max(difference, apart.abs().max().item())
    ms = {name: 1000 * statistics.median(values) for name, values in times.items()}
    lines = [
        "| step | Java and pycocoevalcap, ms | ours, ms | times faster |",
        "|---|---|---|---|",
        f"| references known | {ms['peer']:.1f} | {ms['known']:.2f} | {ms['peer'] / ms['known']:.0f} |",
        f"| first sight | {ms['peer']:.1f} | {ms['first sight']:.2f} | {ms['peer'] / ms['first sight']:.0f} |",
        f"| its tokens known | {ms['peer known']:.1f} | {ms['known']:.2f} | {ms['peer known'] / ms['known']:.0f} |",
        f"\nLargest difference of a score (0 to 10): {difference:.1e}",
    ]
    return "\n".join(lines)


def caption_table(rollouts: Sequence[Rollout], rounds: int) -> str:
    """Microseconds of one caption."""
    said = [text for rollout in rollouts for text in rollout.texts or ()]
    human = [text for rollout in rollouts for own in rollout.prompts.references or () for text in own]
    splitters = (("ptb_words", ptb_words), ("ptb_words_by_rules", ptb_words_by_rules), ("tokenizer.words", words))
    lines = ["| µs per caption | as a policy says it | as people wrote it |", "|---|---|---|"]
    for name, split in splitters:
        cells = []
        for texts in (said, human):
            runs = [seconds(partial(every, split, texts)) for _ in range(rounds)]
            cells.append(f"{1e6 * statistics.median(runs) / len(texts):.1f}")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="Folder with references.jsonl.gz.")
    parser.add_argument("--candidates", type=int, default=80, help="Episodes in a step, one picture each.")
    parser.add_argument("--steps", type=int, default=5, help="Different steps.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="Threads of torch; Java takes what it wants.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rollouts = episodes(arguments.data, arguments.steps, arguments.candidates)
    print(f"{arguments.candidates} captions of 5 references each, {arguments.rounds} rounds\n")
    print(step_table(rollouts, arguments.rounds), "\n")
    print(caption_table(rollouts, 5))


if __name__ == "__main__":
    main()

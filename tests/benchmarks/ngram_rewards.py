"""Rewards of counted n-grams against pycocoevalcap's, side by side: a table in Markdown.

    python tests/benchmarks/ngram_rewards.py --data ../shared/data/multi30k_captions5

Real captions with five references each. A candidate is the first of them as a half-trained captioner would say it: a
sixth of its words dropped, a sixth replaced. Our side has met the references before, as in every epoch but the first;
pycocoevalcap has no way to remember them. Both sides get tokenised text, except in the rows that say "texts": there
our reward tokenises what was said. pycocoevalcap does so only in the row that names its PTBTokenizer, which is shown
where Java is installed. Rounds are interleaved, and medians are shown.
"""

import argparse
import contextlib
import io
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from captions import captions, half_learnt


def interleaved(functions: Sequence[Callable[[], Sequence[float]]], rounds: int) -> list[float]:
    """Median milliseconds of each function, called in turn, after one round that does not count."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            own.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(own[1:]) for own in times]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with train.jsonl.gz, captions under 'en'.")
    parser.add_argument("--captions", type=int, default=1000)
    parser.add_argument("--self", type=int, default=200, help="Texts of self-BLEU.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # read when numpy and torch are imported
    images = captions(arguments.data, arguments.captions)
    texts = half_learnt(images)
    print("| what | peer | peer ms | ours ms | ratio | largest difference |\n|---|---|---|---|---|---|")
    for what, peer, theirs, ours in rows(texts, images, arguments.self):
        with contextlib.redirect_stdout(io.StringIO()):  # pycocoevalcap prints as it goes
            both = zip(theirs(), ours(), strict=True)
            gap = max(abs(a - b) for a, b in both)
            peer_ms, our_ms = interleaved([theirs, ours], arguments.rounds)
        print(f"| {what} | {peer} | {peer_ms:.1f} | {our_ms:.2f} | {peer_ms / our_ms:.0f} | {gap:.1e} |")
        sys.stdout.flush()


Scores = Callable[[], Sequence[float]]


def rows(texts: list[str], images: list[tuple[str, ...]], others: int) -> list[tuple[str, str, Scores, Scores]]:
    """What is compared: its name, the peer's, the peer's function and ours."""
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError:
        raise SystemExit("The peer is missing: pip install pycocoevalcap") from None
    from lrl_core.metrics.bleu import BleuCounter, bleu
    from lrl_core.metrics.cider import CiderScorer, document_frequencies
    from lrl_core.metrics.diversity import self_bleu
    from lrl_core.metrics.rouge import rouge_l
    from lrl_core.tokenizer import words
    from lrl_plugins.rewards.texts import tokenised

    said = [tokenised(text, False) for text in texts]
    wanted = [[tokenised(text, False) for text in captions] for captions in images]
    keys = range(len(said))
    gts = {i: [" ".join(own) for own in row] for i, row in enumerate(wanted)}
    res = {i: [" ".join(own)] for i, own in enumerate(said)}
    few = [" ".join(own) for own in said[:others]]
    rest = {i: few[:i] + few[i + 1 :] for i in range(len(few))}
    cider, counter = CiderScorer(document_frequencies(wanted)), BleuCounter()
    rewards = Rewards(texts, images)

    def their_bleu(references: dict[int, list[str]], candidates: dict[int, list[str]]) -> Sequence[float]:
        return Bleu(4).compute_score(references, candidates, verbose=0)[1][3]

    def their_cider() -> Sequence[float]:
        return Cider().compute_score(gts, res)[1]

    # The reward ROUGE splits texts as `words` does.
    split, split_references = [words(text) for text in texts], [[words(text) for text in row] for row in images]
    joined = {i: [" ".join(own)] for i, own in enumerate(split)}
    joined_references = {i: [" ".join(own) for own in row] for i, row in enumerate(split_references)}

    def their_rouge() -> Sequence[float]:
        return Rouge().compute_score(joined_references, joined)[1]

    def both_steps() -> Sequence[float]:
        tokenize = PTBTokenizer().tokenize
        of_images = tokenize({i: [{"caption": text} for text in captions] for i, captions in enumerate(images)})
        return Cider().compute_score(of_images, tokenize({i: [{"caption": text}] for i, text in enumerate(texts)}))[1]

    return [
        ("CIDEr-D", "Cider", their_cider, lambda: cider.score(said, keys, wanted.__getitem__)),
        ("CIDErD, texts", "Cider", their_cider, rewards.cider),
        *([("CIDErD, texts", "PTBTokenizer + Cider", both_steps, rewards.cider)] if shutil.which("java") else []),
        (
            "BLEU-4",
            "Bleu(4)",
            lambda: their_bleu(gts, res),
            lambda: bleu(counter.compare(said, keys, wanted.__getitem__), "coco")[:, -1],
        ),
        ("BLEU, texts", "Bleu(4)", lambda: their_bleu(gts, res), rewards.bleu),
        (
            "ROUGE-L",
            "Rouge",
            their_rouge,
            lambda: [rouge_l(own, row) for own, row in zip(split, split_references, strict=True)],
        ),
        ("ROUGE, texts", "Rouge", their_rouge, rewards.rouge),
        (
            f"self-BLEU of {len(few)}",
            "Bleu(4), all others as references",
            lambda: their_bleu(rest, {i: [text] for i, text in enumerate(few)}),
            lambda: self_bleu(said[: len(few)], smoothing="coco", effective_order=False),
        ),
    ]


class Rewards:
    """The rewards as a recipe names them, on one batch.

    Args:
        texts: What was said.
        images: The references of each text.
    """

    def __init__(self, texts: list[str], images: list[tuple[str, ...]]) -> None:
        import torch

        from lrl_core.testing.rewards import example_rollout, facts_of
        from lrl_plugins.rewards.bleu import BLEU
        from lrl_plugins.rewards.cider import CIDErD
        from lrl_plugins.rewards.rouge import ROUGE

        example = example_rollout().select(torch.zeros(len(texts), dtype=torch.long))
        references = tuple(tuple(captions) for captions in images)
        prompts = replace(example.prompts, references=references)
        self.rollout = replace(example, prompts=prompts, texts=tuple(texts))
        self._cider, self._bleu, self._rouge = CIDErD(eos=False), BLEU(smoothing="coco"), ROUGE("rougeL_coco")
        self._cider.bind(replace(facts_of(example), references=references))

    def cider(self) -> Sequence[float]:
        """CIDEr-D; rewards are 32-bit numbers, which shows in the largest difference."""
        return self._cider.score(self.rollout).total.tolist()

    def bleu(self) -> Sequence[float]:
        """BLEU-4."""
        return self._bleu.score(self.rollout).total.tolist()

    def rouge(self) -> Sequence[float]:
        """ROUGE-L, with the words as `words` gives them."""
        return self._rouge.score(self.rollout).total.tolist()


if __name__ == "__main__":
    main()

"""How good captions are: fast metrics for validation in Python, and those of the published tables for tests."""

import contextlib
import io
import shutil
import subprocess
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric

from lrl_core.metrics.bleu import corpus_bleu
from lrl_core.metrics.cider import cider, cider_d
from lrl_core.metrics.rouge import rouge_l
from lrl_core.ranks import world_size
from lrl_core.tokenizer import words

Captions: TypeAlias = dict[str, list[str]]
"""Tokenised sentences by id, tokens joined by spaces: what pycocoevalcap reads."""


class _CaptionCorpus(Metric):
    """Collects captions of all ranks, once per id; the scores are those of the corpus, computed at the end."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self) -> None:
        # Rows are Python objects, which torchmetrics cannot gather: `compute` does it.
        super().__init__(sync_on_compute=False)
        self._rows: dict[str, tuple[str, tuple[str, ...]]] = {}

    def update(self, ids: list[str], candidates: list[str], references: list[tuple[str, ...]]) -> None:
        """Add captions.

        Args:
            ids: What each caption describes; of several captions with one id only the first counts, so that the
                repetitions with which samplers fill the last batch of a rank change nothing.
            candidates: The captions.
            references: The human captions of each.
        """
        for name, candidate, own in zip(ids, candidates, references, strict=True):
            if not own:
                raise ValueError(
                    f"{type(self).__name__} got no references for {name!r}; expected at least one human caption. "
                    "Leave such rows out of the evaluation."
                )
            self._rows.setdefault(name, (candidate, tuple(own)))

    def compute(self) -> dict[str, Tensor]:
        """Scores of the corpus, the same on every rank; empty before any caption has been added."""
        rows = _gathered(self._rows)
        scores = _on_first_rank(lambda: self._scores(rows)) if rows else {}
        return {name: torch.tensor(score, device=self.device) for name, score in scores.items()}

    def forward(self, ids: list[str], candidates: list[str], references: list[tuple[str, ...]]) -> None:
        """Add captions; a batch on its own is no corpus and has no scores."""
        self.update(ids, candidates, references)

    def reset(self) -> None:
        """Forget all captions."""
        super().reset()
        self._rows = {}

    @abstractmethod
    def _scores(self, rows: dict[str, tuple[str, tuple[str, ...]]]) -> dict[str, float]:
        """Scores of the whole corpus: id -> candidate, references."""


class CaptionMetrics(_CaptionCorpus):
    """CIDErD, CIDEr, BLEU_1 to BLEU_4 and ROUGE_L of the corpus, in Python, in seconds.

    The formulas are those of the COCO caption evaluation; the words are those of `lrl_core.tokenizer.words`, which
    differ from its Java tokenizer in contractions and rare symbols. Document frequencies are those of the references
    that are scored. CIDEr and CIDErD are on the scale 0 to 10.
    """

    def _scores(self, rows: dict[str, tuple[str, tuple[str, ...]]]) -> dict[str, float]:
        candidates = [words(candidate) for candidate, _ in rows.values()]
        references = [[words(text) for text in own] for _, own in rows.values()]
        bleu = corpus_bleu(candidates, references, smoothing="coco")
        pairs = zip(candidates, references, strict=True)
        return {
            "CIDErD": _mean(cider_d(candidates, references)),
            "CIDEr": _mean(cider(candidates, references)),
            **{f"BLEU_{n}": score for n, score in enumerate(bleu, start=1)},
            "ROUGE_L": _mean([rouge_l(candidate, own) for candidate, own in pairs]),
        }


class PublishedCaptionMetrics(_CaptionCorpus):
    """The metrics of published tables, by the code that computes them there (pycocoevalcap).

    BLEU_1 to BLEU_4, ROUGE_L, CIDErD (what pycocoevalcap and papers call CIDEr), METEOR and SPICE, and CIDEr without
    clipping by our own function. Tokenisation, METEOR and SPICE need Java, SPICE also the Stanford models; a metric
    that cannot be computed is left out, with a warning that says why.
    """

    def _scores(self, rows: dict[str, tuple[str, tuple[str, ...]]]) -> dict[str, float]:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        with contextlib.redirect_stdout(io.StringIO()):
            references = _tokenised({name: list(own) for name, (_, own) in rows.items()})
            candidates = _tokenised({name: [candidate] for name, (candidate, _) in rows.items()})
            bleu = Bleu(4).compute_score(references, candidates, verbose=0)[0]
            scores = {f"BLEU_{n}": float(score) for n, score in enumerate(bleu, start=1)}
            scores["ROUGE_L"] = float(Rouge().compute_score(references, candidates)[0])
            scores["CIDErD"] = float(Cider().compute_score(references, candidates)[0])
            for name, run in (("METEOR", _meteor), ("SPICE", _spice)):
                with _left_out_on_failure(name):
                    scores[name] = run(references, candidates)
        said = [candidates[name][0].split() for name in rows]
        scores["CIDEr"] = _mean(cider(said, [[text.split() for text in references[name]] for name in rows]))
        return scores


def _tokenised(texts: Captions) -> Captions:
    """By the Java PTB tokenizer; by `words`, with a warning, where it does not run."""
    if _java():
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        lines = {name: [{"caption": " ".join(text.split())} for text in own] for name, own in texts.items()}
        try:
            tokenised = PTBTokenizer().tokenize(lines)
        except OSError as error:
            problem = f"it failed ({error})"
        else:
            if {name: len(own) for name, own in tokenised.items()} == {name: len(own) for name, own in texts.items()}:
                return tokenised
            problem = "it did not give one line per caption (see its messages above)"
    else:
        problem = "there is no `java` on the PATH"
    warnings.warn(
        f"PublishedCaptionMetrics wanted the Java PTB tokenizer, but {problem}: captions are split by "
        "lrl_core.tokenizer.words instead, and the scores are near the published definition, not equal to it. "
        "Install a Java runtime for published numbers.",
        stacklevel=2,
    )
    return {name: [" ".join(words(text)) for text in own] for name, own in texts.items()}


def _meteor(references: Captions, candidates: Captions) -> float:
    _require_java()
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    try:
        return float(meteor.compute_score(references, candidates)[0])
    finally:
        process = meteor.meteor_p
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()


def _spice(references: Captions, candidates: Captions) -> float:
    _require_java()
    from pycocoevalcap.spice import get_stanford_models, spice

    jar = Path(spice.__file__).parent / get_stanford_models.SPICELIB / f"{get_stanford_models.JAR}.jar"
    if not jar.is_file():
        raise FileNotFoundError(
            "the Stanford models are not there; download them once with "
            "`python -c 'from pycocoevalcap.spice.spice import Spice; Spice()'`"
        )
    return float(spice.Spice().compute_score(references, candidates)[0])


@contextlib.contextmanager
def _left_out_on_failure(name: str) -> Iterator[None]:
    try:
        yield
    # What a Java process can end in: no memory, no file, no readable answer.
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        warnings.warn(f"PublishedCaptionMetrics leaves {name} out: {error}.", stacklevel=2)


def _java() -> bool:
    return shutil.which("java") is not None


def _require_java() -> None:
    if not _java():
        raise FileNotFoundError("there is no `java` on the PATH; install a Java runtime")


def _gathered(rows: dict[str, Any]) -> dict[str, Any]:
    """The rows of all ranks, sorted by id, so that sums do not depend on who had which."""
    shards: list[dict[str, Any]] = [{} for _ in range(world_size())]
    if len(shards) > 1:
        torch.distributed.all_gather_object(shards, rows)
    else:
        shards = [rows]
    merged: dict[str, Any] = {}
    for shard in shards:
        merged = shard | merged
    return dict(sorted(merged.items()))


def _on_first_rank(compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Compute once and tell the other ranks, also when it failed: they would wait for ever."""
    if world_size() == 1:
        return compute()
    told: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            told[0] = compute()
        except Exception as error:
            told[1] = f"{type(error).__name__}: {error}"
    torch.distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise RuntimeError(f"The caption metrics failed on rank 0: {told[1]}. Its log has the details.")
    return told[0]


def _mean(scores: list[float]) -> float:
    return sum(scores) / len(scores)

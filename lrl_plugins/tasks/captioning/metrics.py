"""How good captions are: fast metrics for validation in Python, and those of the published tables for tests."""

import contextlib
import io
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from lrl_core.metrics.bleu import corpus_bleu
from lrl_core.metrics.cider import cider, cider_d
from lrl_core.metrics.ptb import ptb_words
from lrl_core.metrics.rouge import rouge_l
from lrl_plugins.tasks.corpus import Answers, Corpus, mean

Captions: TypeAlias = dict[str, list[str]]
"""Tokenised sentences by id, tokens joined by spaces: what pycocoevalcap reads."""


class CaptionMetrics(Corpus):
    """CIDErD, CIDEr, BLEU_1 to BLEU_4 and ROUGE_L of the corpus, in Python, in seconds.

    The formulas are those of the COCO caption evaluation, and so are the words (`lrl_core.metrics.ptb`). Document
    frequencies are those of the references that are scored. CIDEr and CIDErD are on the scale 0 to 10.
    """

    def _scores(self, rows: Answers) -> dict[str, float]:
        candidates = [ptb_words(candidate) for candidate, _ in rows.values()]
        references = [[ptb_words(text) for text in own] for _, own in rows.values()]
        bleu = corpus_bleu(candidates, references, smoothing="coco")
        pairs = zip(candidates, references, strict=True)
        return {
            "CIDErD": mean(cider_d(candidates, references)),
            "CIDEr": mean(cider(candidates, references)),
            **{f"BLEU_{n}": score for n, score in enumerate(bleu, start=1)},
            "ROUGE_L": mean([rouge_l(candidate, own) for candidate, own in pairs]),
        }


class PublishedCaptionMetrics(Corpus):
    """The metrics of published tables, by the code that computes them there (pycocoevalcap).

    BLEU_1 to BLEU_4, ROUGE_L, CIDErD (what pycocoevalcap and papers call CIDEr), METEOR and SPICE, and CIDEr without
    clipping by our own function. Tokenisation, METEOR and SPICE need Java, SPICE also the Stanford models; a metric
    that cannot be computed is left out, with a warning that says why.
    """

    def _scores(self, rows: Answers) -> dict[str, float]:
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
        scores["CIDEr"] = mean(cider(said, [[text.split() for text in references[name]] for name in rows]))
        return scores


def _tokenised(texts: Captions) -> Captions:
    """By the Java PTB tokenizer; by `ptb_words`, with a warning, where it does not run."""
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
        "lrl_core.metrics.ptb instead, which gives the same words but for rare signs. Install a Java runtime for "
        "the published definition.",
        stacklevel=2,
    )
    return {name: [" ".join(ptb_words(text)) for text in own] for name, own in texts.items()}


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

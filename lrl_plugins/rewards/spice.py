"""SPICE as a reward, by the Java program of its authors that pycocoevalcap brings along."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from lrl_core.interfaces import Reward, Sampler
from lrl_core.tokenizer import words
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import NAN, as_row, under
from lrl_plugins.rewards.java import JavaError, Scratch, require_java, tail
from lrl_plugins.rewards.texts import texts_and_references


class _Question(NamedTuple):
    said: str
    wanted: tuple[str, ...]


class SPICE(Reward):
    """SPICE of every episode against its prompt's references, in [0, 1]: objects, attributes and relations agree.

    Anderson et al. 2016 (arXiv:1607.08822); English. Needs Java and the Stanford models, which pycocoevalcap downloads
    when its own Spice is made for the first time; without them the recipe is refused. The program judges whole files:
    it is started once per batch, which takes many seconds, so that SPICE is for evaluation or for patient training.
    Nothing said scores 0; what the program finds no number for cannot be judged (NaN).

    Args:
        java: Name or path of the Java program.
        memory: The most memory Java may take, as for its option -Xmx.
        time_limit: Seconds a batch may take.
        cache: Folder where parsed references are kept for the next run; None keeps them for this run only.
        program: The file spice-1.0.jar, beside it the folder lib with the Stanford models; None: that of pycocoevalcap.
    """

    concurrent = True

    def __init__(
        self,
        java: str = "java",
        memory: str = "8G",
        time_limit: float = 1800.0,
        cache: str | None = None,
        program: str | None = None,
    ) -> None:
        super().__init__()
        if time_limit <= 0:
            raise ValueError(f"SPICE: time_limit is {time_limit}; expected seconds > 0. Usual: 1800.")
        self.java, self.memory, self.time_limit, self.cache = java, memory, time_limit, cache
        self._jar, self._models = _files(program)
        self._scratch = Scratch()

    def check(self, sampler: Sampler) -> None:
        """Refuse a recipe that cannot be judged here: there is no Java, or no model."""
        self._require()

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        self._require()
        rows = [_question(text, references) for text, _, references in texts_and_references(self, rollout)]
        asked = list(dict.fromkeys(question for question in rows if question.said and question.wanted))
        answers = dict(zip(asked, self._judge(asked), strict=True))
        return under("SPICE", as_row([_answer(question, answers) for question in rows], rollout))

    def _judge(self, asked: list[_Question]) -> list[float]:
        if not asked:
            return []
        with tempfile.TemporaryDirectory(prefix="lrl-spice-") as folder:
            questions, answers = Path(folder, "questions.json"), Path(folder, "answers.json")
            listed = [{"image_id": i, "test": one.said, "refs": list(one.wanted)} for i, one in enumerate(asked)]
            questions.write_text(json.dumps(listed), encoding="utf-8")
            self._run(questions, answers)
            return _read(answers, len(asked))

    def _run(self, questions: Path, answers: Path) -> None:
        cache = self._scratch.path() if self.cache is None else Path(self.cache).resolve()
        cache.mkdir(parents=True, exist_ok=True)
        command = [self.java, f"-Xmx{self.memory}", "-jar", str(self._jar), str(questions)]
        command += ["-cache", str(cache), "-out", str(answers), "-silent"]
        with tempfile.TemporaryFile() as errors:
            try:
                done = subprocess.run(
                    command, cwd=self._jar.parent, timeout=self.time_limit, stdout=subprocess.DEVNULL, stderr=errors
                )
            except subprocess.TimeoutExpired as error:
                raise JavaError(
                    f"SPICE's Java program did not finish within {self.time_limit:g} seconds; expected the scores of a "
                    "batch. Raise time_limit, or make batches smaller."
                ) from error
            if done.returncode != 0 or not answers.is_file():
                raise JavaError(
                    f"SPICE's Java program ended with status {done.returncode}; expected a file of scores. "
                    f"Its last words: {tail(errors)} (it was written for Java 8: name another with java)."
                )

    def _require(self) -> None:
        require_java("SPICE", self.java)
        for file in (self._jar, self._models):
            if not file.is_file():
                raise ValueError(
                    f"SPICE: there is no {file.name} in {file.parent}; expected the program and the Stanford models. "
                    "Download them once with `python -c 'from pycocoevalcap.spice.spice import Spice; Spice()'`."
                )


def _question(text: str, references: tuple[str, ...]) -> _Question:
    wanted = (" ".join(words(reference)) for reference in references)
    return _Question(" ".join(words(text)), tuple(line for line in wanted if line))


def _answer(question: _Question, answers: dict[_Question, float]) -> float:
    if not question.wanted:
        return NAN
    return answers[question] if question.said else 0.0


def _read(answers: Path, count: int) -> list[float]:
    """The scores in the order of the questions; NaN where the program has none."""
    found = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(answers.read_text(encoding="utf-8"))}
    return [_number(found.get(i)) for i in range(count)]


def _number(value: object) -> float:
    # The program writes null or the text "NaN" where a caption has nothing to compare.
    return float(value) if isinstance(value, int | float) else NAN


def _files(program: str | None) -> tuple[Path, Path]:
    """The program and the file that pycocoevalcap downloads."""
    from pycocoevalcap.spice import get_stanford_models, spice

    jar = Path(spice.__file__).parent / spice.SPICE_JAR if program is None else Path(program).resolve()
    return jar, jar.parent / get_stanford_models.SPICELIB / f"{get_stanford_models.JAR}.jar"

"""METEOR as a reward, by the Java program of its authors that pycocoevalcap brings along."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from lrl_core.interfaces import Reward, Sampler
from lrl_core.metrics.recent import Recent
from lrl_core.tokenizer import words
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.each import NAN, each_against_references, under
from lrl_plugins.rewards.java import Conversation, JavaError, require_java

_BETWEEN = " ||| "


class METEOR(Reward):
    """METEOR 1.5 of every episode against its prompt's references, in [0, 1]: stems, synonyms and paraphrases count.

    Denkowski and Lavie 2014; English. The Java program in pycocoevalcap is started at first use and kept alive, in
    every rank one of its own, with up to 2 GB; without Java the recipe is refused. Words are those of BLEU and CIDEr.
    Nothing said scores 0; an episode on which the program fails twice cannot be judged (NaN), with a warning.

    Args:
        java: Name or path of the Java program.
        memory: The most memory Java may take, as for its option -Xmx.
        time_limit: Seconds to wait for an answer, the start of the program included.
    """

    concurrent = True

    def __init__(self, java: str = "java", memory: str = "2G", time_limit: float = 120.0) -> None:
        super().__init__()
        if time_limit <= 0:
            raise ValueError(f"METEOR: time_limit is {time_limit}; expected seconds > 0. Usual: 120.")
        self.java = java
        jar = _jar()
        command = [java, f"-Xmx{memory}", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
        self._program = Conversation("METEOR", command, jar.parent, time_limit)
        self._split: Recent[tuple[str, ...], list[str]] = Recent()

    def check(self, sampler: Sampler) -> None:
        """Refuse a recipe that cannot be judged here: there is no Java."""
        require_java("METEOR", self.java)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        require_java("METEOR", self.java)
        with self._program.lock:
            return under("METEOR", each_against_references(self, rollout, self._one))

    def _one(self, text: str, references: tuple[str, ...]) -> float:
        wanted = self._split.get(references, lambda: [line for own in references if (line := " ".join(words(own)))])
        said = " ".join(words(text))
        if not wanted:
            return NAN
        if not said:
            return 0.0
        try:
            return self._ask(said, wanted)
        except JavaError as error:
            return self._again(said, wanted, error)

    def _again(self, said: str, wanted: Sequence[str], error: JavaError) -> float:
        """Ask a fresh program; its own failure is raised, that of these texts alone makes them unjudged."""
        self._ask("a", ["a"])
        try:
            return self._ask(said, wanted)
        except JavaError:
            warnings.warn(f"METEOR cannot judge {said!r} against {list(wanted)}: {error}", stacklevel=2)
            return NAN

    def _ask(self, said: str, wanted: Sequence[str]) -> float:
        self._program.say(_BETWEEN.join(["SCORE", *wanted, said]))
        self._program.say(_BETWEEN.join(["EVAL", self._program.hear()]))
        answer = self._program.hear()
        self._program.hear()  # the score of the "corpus" of this one segment
        try:
            score = float(answer)
        except ValueError:
            score = math.nan
        if not 0 <= score <= 1:
            self._program.close()
            raise JavaError(f"METEOR's Java program answered {answer!r}; expected a number in [0, 1].")
        return score


def _jar() -> Path:
    from pycocoevalcap.meteor import meteor

    return Path(meteor.__file__).parent / meteor.METEOR_JAR

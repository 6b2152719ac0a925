"""What can be said of generated answers without asking anybody: how long and how varied they are."""

from collections.abc import Callable

from lrl_core.metrics.diversity import distinct_n
from lrl_core.tokenizer import words
from lrl_plugins.tasks.corpus import Answers, Corpus, mean


class AnswerMetrics(Corpus):
    """words, distinct_1 to distinct_3, and worth where the world is made up.

    distinct_n is the share of distinct n-grams in the whole corpus (Li et al. 2016, arXiv 1510.03055); it falls with
    the size of the corpus, so only corpora of one size compare. Whether answers are better is for people or for a
    preference model to say.

    Args:
        worth: What an answer is truly worth, or None of one of which that is not known.
    """

    needs_references = False

    def __init__(self, worth: Callable[[str], float | None]) -> None:
        super().__init__()
        self.worth = worth

    def _scores(self, rows: Answers) -> dict[str, float]:
        sentences = [words(said) for said, _ in rows.values()]
        scores = {f"distinct_{n}": distinct_n(sentences, n) for n in (1, 2, 3)}
        known = [value for said, _ in rows.values() if (value := self.worth(said)) is not None]
        scores["worth"] = mean(known) if known else None
        length = mean([float(len(sentence)) for sentence in sentences])
        return {**{name: score for name, score in scores.items() if score is not None}, "words": length}

"""How good a questioner is: success, also had the guess been made earlier, turns, and how it asks."""

from dataclasses import dataclass

from torch import Tensor

from lrl_core.reports import Answer, EpisodeMetric
from lrl_plugins.tasks.corpus import mean, scored_together
from lrl_plugins.tasks.goal_oriented_questions.environment import Dialogue, Interview
from lrl_plugins.tasks.goal_oriented_questions.wording import pieces
from lrl_plugins.tasks.goal_oriented_questions.worlds import UNKNOWN, Game


@dataclass(frozen=True)
class Outcome:
    """One game that was played."""

    success: float
    """Probability that the guess is right; 0 where the length limit cut the game before it."""
    within: tuple[float, ...]
    """The same had it been made after 1, 2, ... questions."""
    questions: tuple[str, ...]
    """What was asked."""
    unknown: int
    """How many of the questions were answered "unknown"."""
    stopped: bool
    """Whether the questioner ended the game."""
    finished: bool
    """Whether the game came to the guess."""


class QuestionMetrics(EpisodeMetric):
    """Plays the conversations again and counts; prices and bonuses of the reward do not enter.

    success: mean probability that the guess is right; a game that the decoder's length limit cut has none. turns: mean
    number of questions. success_within_k: success had the guess been made after k questions (at the end where there
    were fewer). repeated_questions: share of games in which a question was asked twice, word for word.
    unknown_answers: share of the questions. question_vocabulary: number of different words in all questions. stopped:
    share of games that the questioner ended. finished: share that came to the guess: where it is below 1, raise the
    decoder's max_length.

    Args:
        environment: Where the games were played.
        games: The games of the split, by id.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self, environment: Interview, games: dict[str, Game]) -> None:
        # Outcomes are Python objects, which torchmetrics cannot gather: `compute` does it.
        super().__init__(sync_on_compute=False)
        self.environment, self.games = environment, games
        self._outcomes: dict[str, Outcome] = {}

    def update(self, answers: list[Answer]) -> None:
        """Add games; of several with one id only the first counts: samplers repeat some to fill a rank's last batch."""
        for answer in answers:
            if answer.id not in self.games:
                raise ValueError(
                    f"QuestionMetrics: got an answer to {answer.id!r}, expected one of the {len(self.games)} games of "
                    "this split. Measure answers with the metric of their own split."
                )
            if answer.id not in self._outcomes:
                played = self.environment.replay(self.games[answer.id], answer.tokens, answer.chosen)
                self._outcomes[answer.id] = self._outcome(played)

    def compute(self) -> dict[str, Tensor]:
        """Means over all games, the same on every rank; empty before any has been added."""
        return scored_together(self._outcomes, lambda outcomes: question_scores(list(outcomes.values())), self)

    def forward(self, answers: list[Answer]) -> None:
        """Add games; a batch on its own has no scores."""
        self.update(answers)

    def reset(self) -> None:
        """Forget all games."""
        super().reset()
        self._outcomes = {}

    def _outcome(self, played: Dialogue) -> Outcome:
        return Outcome(
            success=self.environment.success(played) if played.done else 0.0,
            within=tuple(self.environment.success_after(played, k + 1) for k in range(self.environment.turns)),
            questions=tuple(question for question, _ in played.turns),
            unknown=sum(answer == UNKNOWN for _, answer in played.turns),
            stopped=played.stopped,
            finished=played.done,
        )


def question_scores(outcomes: list[Outcome]) -> dict[str, float]:
    """Means over at least one game."""
    asked = sum(len(outcome.questions) for outcome in outcomes)
    words = {word for outcome in outcomes for question in outcome.questions for word in pieces(question)}
    return {
        "success": mean([outcome.success for outcome in outcomes]),
        "turns": asked / len(outcomes),
        **{
            f"success_within_{k}": mean(list(column))
            for k, column in enumerate(zip(*(outcome.within for outcome in outcomes), strict=True), start=1)
        },
        "repeated_questions": mean([float(len(set(o.questions)) < len(o.questions)) for o in outcomes]),
        "unknown_answers": sum(outcome.unknown for outcome in outcomes) / max(1, asked),
        "question_vocabulary": float(len(words)),
        "stopped": mean([float(outcome.stopped) for outcome in outcomes]),
        "finished": mean([float(outcome.finished) for outcome in outcomes]),
    }

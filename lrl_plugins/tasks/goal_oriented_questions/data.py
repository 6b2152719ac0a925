"""The task of goal-oriented questions: games with hidden objects, as batches of `Prompts`."""

from functools import cached_property

from torchmetrics import Metric

from lrl_core.interfaces import TaskFacts
from lrl_plugins.tasks.captioning.images import PixelReader
from lrl_plugins.tasks.goal_oriented_questions.environment import Interview
from lrl_plugins.tasks.goal_oriented_questions.guesswhat import GuessWhatWorld
from lrl_plugins.tasks.goal_oriented_questions.learned import LearnedGuesser, LearnedOracle
from lrl_plugins.tasks.goal_oriented_questions.metric import QuestionMetrics
from lrl_plugins.tasks.goal_oriented_questions.nlvr import NlvrWorld
from lrl_plugins.tasks.goal_oriented_questions.players import BayesGuesser, Guesser, Oracle, TruthfulOracle
from lrl_plugins.tasks.goal_oriented_questions.rows import Games, collator
from lrl_plugins.tasks.goal_oriented_questions.scenes import SceneWorld
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable
from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.wording import pieces
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game, World
from lrl_plugins.tasks.splits import Serving, SplitTask

__all__ = [
    "AttributeTable", "BayesGuesser", "GoalOrientedQuestions", "GuessWhatWorld", "Guesser", "LearnedGuesser",
    "LearnedOracle", "NlvrWorld", "Oracle", "SceneWorld", "TruthfulOracle", "World",
]  # fmt: skip

SPLITS = ("train", "val", "test")


class GoalOrientedQuestions(SplitTask):
    """Find out by questions which object is hidden. Without arguments: eight objects, nothing to download.

    The policy writes questions word by word, an oracle answers yes, no or unknown, and after the last answer a guesser
    names the object; the environment pays the probability that it is right. The policy may end the game earlier with
    the end token. To begin with, dialogues of random questions with true answers are learnt from, or what people said
    where the world has that. An episode has at most turns x (longest_question + 1) + 1 tokens, which the decoder's
    max_length must allow.

    Held-out metrics: success, success_within_1, ..., turns, repeated_questions, unknown_answers, question_vocabulary,
    stopped and finished.

    Every game is one prompt: `batch_size` per step and rank, each once per epoch. Everything is read and checked when
    the recipe is read.

    Args:
        world: What is asked about: AttributeTable, SceneWorld, NlvrWorld, GuessWhatWorld or a class of your own;
            None = AttributeTable().
        turns: Questions per game, at most.
        longest_question: Words per question, the question mark included; a longer one counts as asked.
        batch_size: Games per step and rank.
        price_per_turn: Taken off the reward for every question.
        informativeness: Added to the reward for every bit by which an answer makes the guesser more certain.
        stop: Chance that the questioner of a generated dialogue stops after an answer; 0 never says the end token.
        oracle: Who answers: LearnedOracle or a class of your own; None = TruthfulOracle(), exact.
        guesser: Who guesses: LearnedGuesser or a class of your own; None = BayesGuesser(), exact.
        image_size: Height and width in pixels of pictures, in worlds that have some: the shorter side is brought to
            it, the middle is cut out.
        mean: Subtracted from red, green and blue, on a scale of 0 to 1.
        std: Then divided by.
        seed: Of the order of games and of the dialogues.
    """

    def __init__(
        self,
        world: World | None = None,
        turns: int = 5,
        longest_question: int = 12,
        batch_size: int = 8,
        price_per_turn: float = 0.0,
        informativeness: float = 0.0,
        stop: float = 0.0,
        oracle: Oracle | None = None,
        guesser: Guesser | None = None,
        image_size: int = 48,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.world = world if world is not None else AttributeTable()
        self.turns, self.longest_question, self.batch_size = turns, longest_question, batch_size
        self.price_per_turn, self.informativeness, self.stop = price_per_turn, informativeness, stop
        self.oracle, self.guesser = oracle, guesser
        self.image_size, self.mean, self.std, self.seed = image_size, mean, std, seed
        self._check_numbers()

    def facts(self) -> TaskFacts:
        rows = self._rows["train"]
        example = collator(self.tokenizer.pad)([rows[i % len(rows), 0] for i in range(2)])
        return TaskFacts(self.tokenizer, (), example, environment=self.environment)

    def metrics(self, stage: str) -> Metric:
        split = "test" if stage == "test" else "val"
        return QuestionMetrics(self.environment, {game.id: game for game in self.games[split]})

    def splits(self) -> dict[str, Games]:
        return self._rows

    @cached_property
    def games(self) -> dict[str, list[Game]]:
        """The games by split, checked."""
        splits = {split: self.world.games(split) for split in SPLITS}
        for split in ("train", "val"):
            if not splits[split]:
                raise ValueError(
                    f"{type(self.world).__name__}: got no games in split {split!r}, expected at least one. Name a file "
                    "that has some, or raise the number of games."
                )
        for split, games in splits.items():
            self._check(split, games)
        return {split: games for split, games in splits.items() if games}

    @cached_property
    def tokenizer(self) -> DialogueTokenizer:
        """Text to ids and back: the words of the world."""
        return DialogueTokenizer(self.world.texts(self.games))

    @cached_property
    def games_by_group(self) -> dict[int, Game]:
        """The games by the group number of their prompts."""
        return {rows.first_group + i: game for rows in self._rows.values() for i, game in enumerate(rows.games)}

    @cached_property
    def environment(self) -> Interview:
        """Who answers and pays."""
        return Interview(
            self.world,
            self.games_by_group,
            self.tokenizer,
            self.turns,
            self.longest_question,
            self.price_per_turn,
            self.informativeness,
            self.oracle,
            self.guesser,
        )

    @cached_property
    def _rows(self) -> dict[str, Games]:
        rows, first = {}, 0
        for split, games in self.games.items():
            rows[split] = Games(
                games, first, self.world, self.tokenizer, self.turns, self.stop, self.seed, split == "train",
                PixelReader(self.image_size, self.mean, self.std, cache=True),
            )  # fmt: skip
            first += len(games)
        return rows

    def serving(self) -> Serving:
        name, collate = type(self.world).__name__, collator(self.tokenizer.pad)
        return Serving(name, "games", "Give the world some.", collate, self.batch_size, self.seed)

    def _check(self, split: str, games: list[Game]) -> None:
        """Raise ValueError for what would otherwise stop the run, or make it pointless, hours later."""
        who = f"{type(self.world).__name__}: got"
        if len({game.id for game in games}) < len(games):
            raise ValueError(f"{who} games in split {split!r} that share an id, expected an id of its own for each.")
        for game in games:
            if len(game.objects) < 2 or not 0 <= game.hidden < len(game.objects):
                raise ValueError(
                    f"{who} {len(game.objects)} objects, number {game.hidden} of them hidden, in game {game.id!r} of "
                    f"split {split!r}; expected at least two and one of them hidden. Leave the game out."
                )
        made = [game for game in games if self.world.dialogue(game) is None]  # people may be long-winded
        for question in {question for game in made for question in self.world.questions(game)}:
            if len(pieces(question)) > self.longest_question:
                raise ValueError(
                    f"{who} the question {question!r} of {len(pieces(question))} words, expected at most "
                    f"{self.longest_question}, or it could never be asked. Raise longest_question."
                )

    def _check_numbers(self) -> None:
        for name in ("turns", "longest_question", "batch_size", "image_size"):
            if self.__dict__[name] < 1:
                raise ValueError(
                    f"GoalOrientedQuestions: got {name} {self.__dict__[name]}, expected at least 1. Correct it in the "
                    "recipe."
                )
        if not 0 <= self.stop <= 1:
            raise ValueError(
                f"GoalOrientedQuestions: got stop {self.stop}, expected a chance from 0 to 1. Correct the recipe."
            )

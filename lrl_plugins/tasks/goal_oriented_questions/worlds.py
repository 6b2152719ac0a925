"""What is asked about: worlds of objects with truthful answers, and the games that are played in them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrl_plugins.tasks.captioning.images import Picture

YES, NO, UNKNOWN = "yes", "no", "unknown"
ANSWERS = (YES, NO, UNKNOWN)
"""All that an oracle says; unknown where a question is not understood or does not apply."""

Turn = tuple[str, str]
"""A question and its answer."""

Box = tuple[float, float, float, float]
"""Left, top, width and height, as shares of a picture's width and height."""


@dataclass(frozen=True)
class Game:
    """Some objects, one of which is hidden."""

    id: str
    """Its name, unique in its split."""
    objects: tuple[str, ...]
    """Names of the objects, for people and for logs."""
    hidden: int
    """Index of the hidden one."""
    content: Any = None
    """What the world needs in order to answer; nobody else looks at it."""
    told: str = ""
    """What the questioner reads before the first question; "" for nothing."""
    picture: Picture | None = None
    """What the questioner sees; None for nothing."""


class World(ABC):
    """Objects, and true answers to yes/no questions about them."""

    exact: bool = True
    """Whether the truth of every question about every object is known; else only learned players can play."""

    @abstractmethod
    def games(self, split: str) -> list[Game]:
        """The games of "train", "val" or "test", the same ones at every call; [] where there are none."""

    @abstractmethod
    def answer(self, game: Game, question: str, index: int) -> str:
        """What is true of one object.

        Args:
            game: The game.
            question: Words of a questioner, in lower case with the question mark as a word of its own: "is it red ?".
            index: Which of the game's objects.
        """

    @abstractmethod
    def questions(self, game: Game) -> Sequence[str]:
        """Every question that is understood in this game, in the form that `answer` is asked."""

    def answers(self, game: Game, question: str) -> Sequence[str]:
        """What is true of each object of the game."""
        return [self.answer(game, question, index) for index in range(len(game.objects))]

    def dialogue(self, game: Game) -> Sequence[Turn] | None:
        """What people said in this game, at least one question, in the form that `answer` is asked.

        None where dialogues to begin with are made of `questions` (default).
        """
        return None

    def texts(self, games: Mapping[str, Sequence[Game]]) -> set[str]:
        """What the vocabulary must hold. Default: all questions of all games, and all that questioners are told.

        Args:
            games: By split.
        """
        every = [game for some in games.values() for game in some]
        return {game.told for game in every} | {question for game in every for question in self.questions(game)}

    def category(self, game: Game, index: int) -> str:
        """What a learned player knows an object by, beside its place. Default: its name."""
        return game.objects[index]

    def box(self, game: Game, index: int) -> Box | None:
        """Where an object is in the picture; None where that is not known (default)."""
        return None

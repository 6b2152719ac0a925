"""The two who answer the questioner: an oracle, and a guesser at the end; exact here, learned in `learned`."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from lrl_core.interfaces import Component
from lrl_plugins.tasks.goal_oriented_questions.guessing import posterior, success
from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game, Turn, World


class Player(Component):
    """Somebody beside the questioner."""

    def meet(self, world: World, games: Mapping[int, Game], tokenizer: DialogueTokenizer) -> None:
        """Learn once whose objects are asked about. Default: nothing.

        Args:
            world: Whose objects.
            games: The games by the group number of their prompts.
            tokenizer: The task's.
        """


class Oracle(Player):
    """Knows the hidden object and answers questions about it."""

    @abstractmethod
    def answer(self, game: Game, question: str) -> str:
        """ "yes", "no" or "unknown"."""


class Guesser(Player):
    """Says after a dialogue which object it was about."""

    @abstractmethod
    def beliefs(self, game: Game, turns: Sequence[Turn]) -> list[float]:
        """Probability of each object of the game, given questions and answers; () before the first one."""

    def right(self, beliefs: Sequence[float], hidden: int) -> float:
        """Probability that a guess made with these beliefs is right. Default: the most likely object is guessed."""
        return success(beliefs, hidden)


class TruthfulOracle(Oracle):
    """Answers what is true in the world."""

    def meet(self, world: World, games: Mapping[int, Game], tokenizer: DialogueTokenizer) -> None:
        self.world = known(world, type(self).__name__, "LearnedOracle")

    def answer(self, game: Game, question: str) -> str:
        return self.world.answer(game, question, game.hidden)


class BayesGuesser(Guesser):
    """All objects that every answer is true of are equally likely; it reckons with a truthful oracle."""

    def meet(self, world: World, games: Mapping[int, Game], tokenizer: DialogueTokenizer) -> None:
        self.world = known(world, type(self).__name__, "LearnedGuesser")

    def beliefs(self, game: Game, turns: Sequence[Turn]) -> list[float]:
        return posterior(self.world, game, turns)


def known(world: World, player: str, other: str) -> World:
    """The world itself; ValueError where its truth is not known.

    Args:
        world: Whose objects.
        player: Who needs the truth, for the error.
        other: Who does not.
    """
    if world.exact:
        return world
    raise ValueError(
        f"{player}: got {type(world).__name__}, of which only people's answers are known, expected a world whose truth "
        f"is known. Name {other} in its place, trained by lrl_plugins.tasks.goal_oriented_questions.train_players."
    )

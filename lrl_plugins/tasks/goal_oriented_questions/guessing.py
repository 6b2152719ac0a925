"""What can be known after some answers: which objects are left, how likely the right guess is, bits gained."""

import math
from collections.abc import Sequence

from lrl_plugins.tasks.goal_oriented_questions.worlds import Game, Turn, World


def consistent(world: World, game: Game, turns: Sequence[Turn]) -> list[int]:
    """Indices of the objects that every answer is true of."""
    left = list(range(len(game.objects)))
    for question, answer in turns:
        truth = world.answers(game, question)
        left = [index for index in left if truth[index] == answer]
    return left


def posterior(world: World, game: Game, turns: Sequence[Turn]) -> list[float]:
    """Probability of each object when the answers are true and all objects were equally likely before.

    Where no object is left (an oracle that errs), all of them are possible again.
    """
    left = set(consistent(world, game, turns)) or set(range(len(game.objects)))
    return [1 / len(left) if index in left else 0.0 for index in range(len(game.objects))]


def best(beliefs: Sequence[float]) -> int:
    """The object to guess: the most likely one, the first of several."""
    return max(range(len(beliefs)), key=beliefs.__getitem__)


def success(beliefs: Sequence[float], hidden: int) -> float:
    """Probability that the guess is right: the most likely object is guessed, a tie is broken at random."""
    highest = max(beliefs)
    return 1 / sum(belief == highest for belief in beliefs) if beliefs[hidden] == highest else 0.0


def uncertainty(beliefs: Sequence[float]) -> float:
    """Entropy in bits: log2 of how many objects are left where these are equally likely."""
    return -sum(belief * math.log2(belief) for belief in beliefs if belief > 0)

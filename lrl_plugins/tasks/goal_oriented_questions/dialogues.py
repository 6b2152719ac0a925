"""Dialogues to begin with, as targets of maximum likelihood: what people said, or random questions answered truly."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game, Turn, World


@dataclass(frozen=True)
class Line:
    """A dialogue as tokens."""

    tokens: tuple[int, ...]
    """Questions and answers; the end token at the end where the questioner stops early."""
    own: tuple[bool, ...]
    """True on what the questioner says, False on the oracle's answers."""


def turns_of(world: World, game: Game, turns: int, stop: float, seed: str) -> tuple[list[Turn], bool]:
    """Questions and answers of a game to learn from, and whether the questioner stopped before the last one.

    Args:
        world: Whose game.
        game: The game.
        turns: Questions at most; of longer dialogues of people the beginning is taken.
        stop: As in `draw_turns`; people stop when they do.
        seed: Of the draw.
    """
    said = world.dialogue(game)
    if said is not None:
        return list(said[:turns]), len(said) < turns
    truth = partial(world.answer, game, index=game.hidden)
    return draw_turns(world.questions(game), truth, turns, stop, seed)


def draw_turns(
    questions: Sequence[str], answer: Callable[[str], str], turns: int, stop: float, seed: str
) -> tuple[list[Turn], bool]:
    """Different questions in random order with their answers, and whether the questioner stopped before the last one.

    Args:
        questions: All that could be asked.
        answer: The oracle.
        turns: Questions at most; fewer where there are not so many.
        stop: Chance to stop after each answer but the last one.
        seed: Of the draw.
    """
    draw = random.Random(seed)
    asked = draw.sample(list(questions), min(turns, len(questions)))
    said: list[Turn] = []
    for question in asked:
        said.append((question, answer(question)))
        if len(said) < turns and draw.random() < stop:
            return said, True
    return said, False


def line_of(turns: Sequence[Turn], stopped: bool, tokenizer: DialogueTokenizer) -> Line:
    """A dialogue as it stands in an episode.

    Args:
        turns: Questions and answers.
        stopped: Whether the questioner says the end token after the last answer.
        tokenizer: The task's.
    """
    tokens, own = list[int](), list[bool]()
    for question, answer in turns:
        asked = tokenizer.encode(question)
        tokens += [*asked, tokenizer.answers[answer]]
        own += [True] * len(asked) + [False]
    if stopped:
        tokens, own = [*tokens, tokenizer.eos], [*own, True]
    return Line(tuple(tokens), tuple(own))


def turns_in(tokens: Sequence[int], own: Sequence[bool], tokenizer: DialogueTokenizer) -> list[Turn]:
    """The questions of a line that were answered, with their answers.

    Args:
        tokens: A dialogue, without padding.
        own: Which of its tokens the questioner said.
        tokenizer: The task's.
    """
    turns, said = list[Turn](), list[int]()
    for token, asked in zip(tokens, own, strict=True):
        if asked:
            said.append(token)
        else:
            turns.append((tokenizer.decode(said), tokenizer.decode([token])))
            said = []
    return turns

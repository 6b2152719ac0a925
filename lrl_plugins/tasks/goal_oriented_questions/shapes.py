"""Shapes in pictures and the questions about them: colour, kind, size and place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lrl_plugins.tasks.goal_oriented_questions.wording import worded
from lrl_plugins.tasks.goal_oriented_questions.worlds import NO, UNKNOWN, YES, Game, World


@dataclass(frozen=True)
class Shape:
    """One object of a picture."""

    kind: str
    """circle, square, ..."""
    colour: str
    """red, blue, ..."""
    size: str
    """small, large, ..."""
    places: tuple[str, ...]
    """Where it is, as questions say it: "on the left", ..."""

    @property
    def name(self) -> str:
        """What people would call it."""
        return f"{self.size} {self.colour} {self.kind} {' '.join(self.places)}"


def about_shapes(
    colours: Sequence[str], kinds: Sequence[str], sizes: Sequence[str], places: Sequence[str]
) -> dict[str, Callable[[Shape], bool]]:
    """Every question about a shape, with what it is true of.

    Args:
        colours: "is it red ?".
        kinds: "is it a circle ?".
        sizes: "is it small ?".
        places: "is it on the left ?".
    """
    truths: dict[str, Callable[[Shape], bool]] = {}
    for colour in colours:
        truths[f"is it {colour} ?"] = lambda shape, said=colour: shape.colour == said  # type: ignore[misc]
    for kind in kinds:
        truths[f"is it a {kind} ?"] = lambda shape, said=kind: shape.kind == said  # type: ignore[misc]
    for size in sizes:
        truths[f"is it {size} ?"] = lambda shape, said=size: shape.size == said  # type: ignore[misc]
    for where in places:
        truths[f"is it {where} ?"] = lambda shape, said=where: said in shape.places  # type: ignore[misc]
    return truths


class ShapeWorld(World):
    """What worlds of shapes have in common: `Game.content` is the shapes, and the answers are about them.

    Args:
        truths: Every question that is understood, with what it is true of.
    """

    def __init__(self, truths: dict[str, Callable[[Shape], bool]]) -> None:
        self.truths = truths

    def answer(self, game: Game, question: str, index: int) -> str:
        truth = self.truths.get(worded(question))
        return UNKNOWN if truth is None else YES if truth(game.content[index]) else NO

    def questions(self, game: Game) -> Sequence[str]:
        return tuple(self.truths)

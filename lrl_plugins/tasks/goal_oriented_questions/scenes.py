"""The world of drawn scenes: two or three coloured shapes, which the questioner sees."""

import random

from lrl_plugins.tasks.captioning.scenes import COLOURS, SHAPES, SIZES, DrawnPicture, Scene, scenes
from lrl_plugins.tasks.goal_oriented_questions.shapes import Shape, ShapeWorld, about_shapes
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game

_ALONG = {
    "across": ("on the left", "in the middle", "on the right"),
    "down": ("at the top", "in the middle", "at the bottom"),
}
"""Where the shapes of an arrangement are; two have no middle."""
PLACES = tuple(dict.fromkeys(place for places in _ALONG.values() for place in places))


class SceneWorld(ShapeWorld):
    """Drawn scenes of two or three shapes, one of them hidden; needs no files.

    The questioner sees the picture and asks for colour, shape, size and place, one of them at a time.

    Args:
        train: Training games, each with a scene of its own.
        val: Validation games.
        test: Test games; no scene is in two splits.
        seed: Other seeds give other scenes; what is in val or test never gets into train.
        size: Height and width in pixels.
    """

    def __init__(self, train: int = 2000, val: int = 200, test: int = 200, seed: int = 0, size: int = 48) -> None:
        super().__init__(about_shapes(tuple(COLOURS), SHAPES, SIZES, PLACES))
        self.counts = {"train": train, "val": val, "test": test}
        self.seed, self.size = seed, size

    def games(self, split: str) -> list[Game]:
        return [self._game(f"{split}-{i}", scene) for i, scene in enumerate(self._scenes(split))]

    def _scenes(self, split: str) -> list[Scene]:
        """The first scenes of a split that have several shapes."""
        wanted = drawn = self.counts[split]
        several: list[Scene] = []
        while len(several) < wanted:
            drawn += drawn // 2 + 1
            several = [scene for scene in scenes(split, drawn, self.seed) if len(scene.things) > 1]
        return several[:wanted]

    def _game(self, name: str, scene: Scene) -> Game:
        shapes = shapes_of(scene)
        hidden = random.Random(f"hidden/{self.seed}/{name}").randrange(len(shapes))
        picture = DrawnPicture(scene, self.size, self.seed)
        return Game(name, tuple(shape.name for shape in shapes), hidden, shapes, picture=picture)


def shapes_of(scene: Scene) -> tuple[Shape, ...]:
    """The shapes of a scene of several, from left to right or from top to bottom."""
    along = _ALONG[scene.layout]
    places = along if len(scene.things) == 3 else (along[0], along[2])
    return tuple(
        Shape(thing.shape, thing.colour, thing.size, (place,))
        for thing, place in zip(scene.things, places, strict=True)
    )

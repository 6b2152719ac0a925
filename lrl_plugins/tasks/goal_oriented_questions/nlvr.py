"""The world of NLVR scenes: shapes in three boxes, which the questioner sees."""

import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lrl_plugins.tasks.captioning.images import Picture, pictures_in
from lrl_plugins.tasks.files import json_lines, place
from lrl_plugins.tasks.goal_oriented_questions.shapes import Shape, ShapeWorld, about_shapes
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game

SIZES = {10: "small", 20: "medium", 30: "large"}
BOXES = ("in the first box", "in the second box", "in the third box")
HALVES = ("in the left half", "in the right half", "in the upper half", "in the lower half")
SIDE, STEP, GAP = 50, 75, 4
"""Pixels: side of a box in a file's picture, from one box to the next there, between boxes in ours."""


@dataclass(frozen=True)
class BoxesPicture(Picture):
    """Three boxes of a wide picture in a square one: two in the upper row, the third below on the left."""

    wide: Picture
    """The boxes side by side."""

    def load(self) -> Image.Image:
        wide = np.asarray(self.wide.load())
        side = 2 * SIDE + GAP
        square = np.full((side, side, 3), 128, dtype=np.uint8)
        for box in range(3):
            top, left = (SIDE + GAP) * (box // 2), (SIDE + GAP) * (box % 2)
            square[top : top + SIDE, left : left + SIDE] = wide[:, STEP * box : STEP * box + SIDE]
        return Image.fromarray(square)

    def check(self) -> str | None:
        return self.wide.check()


class NlvrWorld(ShapeWorld):
    """Scenes of the Cornell NLVR corpus (Suhr et al. 2017), one of whose shapes is hidden.

    The questioner sees the three boxes (two above, one below) and asks for colour, shape, size, box, and half of the
    box, one of them at a time. Shapes that are alike in all of these cannot be told apart. No scene is in two splits.

    Args:
        path: Folder with dev, hidden and test, each as {split}.jsonl.gz (`i`: row of the pictures; `boxes`: three lists
            of [shape, colour, size, x, y] in a box of 100 x 100, origin top left) and {split}_images.npz (`images`
            [rows, 50, 200, 3]).
        held_out: Share of the scenes of dev and hidden that become val; the others become train.
        seed: Of the shapes that are hidden.
    """

    def __init__(self, path: str, held_out: float = 0.1, seed: int = 0) -> None:
        super().__init__(about_shapes(("yellow", "blue", "black"), ("circle", "square", "triangle"),
                                      tuple(SIZES.values()), (*BOXES, *HALVES)))  # fmt: skip
        self.path, self.held_out, self.seed = Path(path), held_out, seed

    def games(self, split: str) -> list[Game]:
        return self._games[split]

    @cached_property
    def _games(self) -> dict[str, list[Game]]:
        """The games by split; a scene that occurs again, in whatever file, is left out."""
        games: dict[str, list[Game]] = {"train": [], "val": [], "test": []}
        seen: set[str] = set()
        for file in ("test", "dev", "hidden"):
            rows = list(json_lines(str(self.path / f"{file}.jsonl.gz"), "NlvrWorld"))
            pictures = pictures_in(self.path / f"{file}_images.npz", [self._row_number(row, n) for n, row in rows])
            for (number, row), picture in zip(rows, pictures, strict=True):
                shapes, scene = self._shapes(row, number, file), json.dumps(row["boxes"])
                if scene in seen or len(shapes) < 2:
                    continue
                seen.add(scene)
                split = "test" if file == "test" else "val" if place(scene) < self.held_out else "train"
                games[split].append(self._game(f"{file}-{row['i']}", shapes, BoxesPicture(picture)))
        return games

    def _game(self, name: str, shapes: tuple[Shape, ...], picture: Picture) -> Game:
        hidden = random.Random(f"hidden/{self.seed}/{name}").randrange(len(shapes))
        return Game(name, tuple(shape.name for shape in shapes), hidden, shapes, picture=picture)

    def _row_number(self, row: dict[str, Any], number: int) -> int:
        if not isinstance(row.get("i"), int):
            raise ValueError(f"NlvrWorld: got no number 'i' in line {number}, expected the row of its picture. Add it.")
        return row["i"]

    def _shapes(self, row: dict[str, Any], number: int, file: str) -> tuple[Shape, ...]:
        try:
            return tuple(_shape(box, *one) for box, shapes in enumerate(row["boxes"]) for one in shapes)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"NlvrWorld: got line {number} of {file}.jsonl.gz with boxes {str(row.get('boxes'))[:60]}... "
                f"({type(error).__name__}: {error}), expected three lists of [shape, colour, size 10, 20 or 30, x, y]. "
                "Correct the line."
            ) from error


def _shape(box: int, kind: str, colour: str, size: int, x: float, y: float) -> Shape:
    across, down = x + size / 2, y + size / 2
    halves = (across < 50, across > 50, down < 50, down > 50)
    places = (BOXES[box], *(half for half, holds in zip(HALVES, halves, strict=True) if holds))
    return Shape(kind, colour, SIZES[size], places)

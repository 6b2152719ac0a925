"""Drawn scenes: coloured shapes on a canvas, each described by five people who word it differently."""

import hashlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw

from lrl_plugins.tasks.captioning.images import Picture

COLOURS = {
    "red": (216, 38, 38),
    "blue": (40, 72, 220),
    "green": (34, 150, 62),
    "yellow": (244, 212, 32),
    "purple": (140, 52, 176),
    "orange": (250, 136, 20),
    "black": (24, 24, 24),
    "pink": (250, 140, 196),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
SIZES = ("small", "large")
PLACES = ("left", "right", "top", "bottom", "middle")
ARRANGEMENTS = ("across", "down")
BACKGROUND = (232, 232, 226)
REFERENCES = 5

_SAME = {
    "circle": ("circle", "circle", "circle", "disc"),
    "square": ("square", "square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "cross", "plus"),
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big"),
    "picture": ("picture", "picture", "image", "drawing"),
    "left": ("on the left", "on the left side", "near the left edge"),
    "right": ("on the right", "on the right side", "near the right edge"),
    "top": ("at the top", "at the top", "near the top edge"),
    "bottom": ("at the bottom", "at the bottom", "near the bottom edge"),
    "middle": ("in the middle", "in the middle", "in the centre"),
}


@dataclass(frozen=True)
class Thing:
    """One shape of a scene."""

    shape: str
    """One of SHAPES."""
    colour: str
    """One of COLOURS."""
    size: str
    """One of SIZES."""


@dataclass(frozen=True)
class Scene:
    """One to three shapes: a single one at a place, several side by side or one above the other."""

    things: tuple[Thing, ...]
    """From left to right, or from top to bottom."""
    layout: str
    """One of PLACES for a single shape, one of ARRANGEMENTS for several."""

    @property
    def split(self) -> str:
        """Which split it belongs to: one scene in ten to val, one to test. Depends on nothing but the scene."""
        return {0: "val", 1: "test"}.get(hashlib.sha1(repr(self).encode()).digest()[0] % 10, "train")


def scenes(split: str, count: int, seed: int) -> list[Scene]:
    """The first `count` scenes of a split, all different; a longer list begins with the shorter one."""
    random_, found = random.Random(f"scenes/{split}/{seed}"), dict[Scene, None]()
    while len(found) < count:
        scene = _draw_scene(random_)
        if scene.split == split:
            found[scene] = None
    return list(found)


def describe(scene: Scene, seed: int) -> tuple[str, ...]:
    """Five different true sentences about a scene, 6 to 16 words each: other orders, synonyms and details left out."""
    random_ = random.Random(f"words/{scene}/{seed}")
    openings = list(_WORDINGS[len(scene.things), len(scene.things) > 1 and scene.layout])
    chosen: dict[str, None] = {}
    for wording in _weighted_order(openings, random_):
        chosen[wording(_Phrases(scene, random_))] = None
        if len(chosen) == REFERENCES:
            break
    return tuple(chosen)


@dataclass(frozen=True)
class DrawnPicture(Picture):
    """The picture of a scene, drawn when it is looked at."""

    scene: Scene
    """What to draw."""
    size: int
    """Height and width in pixels."""
    seed: int = 0
    """Of the small shifts that make no two pictures quite alike."""

    def load(self) -> Image.Image:
        zoom = 4
        canvas = Image.new("RGB", (self.size * zoom, self.size * zoom), BACKGROUND)
        pen, random_ = ImageDraw.Draw(canvas), random.Random(f"pen/{self.scene}/{self.seed}")
        for thing, (x, y) in zip(self.scene.things, _positions(self.scene), strict=True):
            x, y = (side + random_.uniform(-0.02, 0.02) for side in (x, y))
            radius = _RADIUS[thing.size] * random_.uniform(0.94, 1.06)
            corners = [
                (canvas.width * (x + radius * u), canvas.width * (y + radius * v)) for u, v in _OUTLINE[thing.shape]
            ]
            pen.polygon(corners, fill=COLOURS[thing.colour])
        return canvas.resize((self.size, self.size), Image.Resampling.BOX)


def _draw_scene(random_: random.Random) -> Scene:
    count = random_.choices((1, 2, 3), weights=(2, 5, 3))[0]
    size = random_.choice(SIZES) if count < 3 else "small"
    kinds = random_.sample([(shape, colour) for shape in SHAPES for colour in COLOURS], count)
    things = tuple(Thing(*kind, random_.choice(SIZES) if count == 2 else size) for kind in kinds)
    return Scene(things, random_.choice(PLACES if count == 1 else ARRANGEMENTS))


# --- pictures ---------------------------------------------------------------------------------------------------------

_RADIUS = {"small": 0.10, "large": 0.19}
_AT = {"left": (0.24, 0.5), "right": (0.76, 0.5), "top": (0.5, 0.24), "bottom": (0.5, 0.76), "middle": (0.5, 0.5)}


def _positions(scene: Scene) -> list[tuple[float, float]]:
    """Centres of the shapes, as shares of the canvas."""
    if len(scene.things) == 1:
        return [_AT[scene.layout]]
    along = {2: (0.25, 0.75), 3: (0.18, 0.5, 0.82)}[len(scene.things)]
    return [(side, 0.5) if scene.layout == "across" else (0.5, side) for side in along]


def _polygon(corners: int, turn: float, inner: float = 1.0) -> list[tuple[float, float]]:
    radii = [1.0, inner] * (corners // 2) if inner < 1 else [1.0] * corners
    angles = [turn + 2 * math.pi * i / corners for i in range(corners)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


_ARM = 0.34
_OUTLINE = {
    "circle": _polygon(48, 0.0),
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "star": [(1.05 * x, 1.05 * y) for x, y in _polygon(10, -math.pi / 2, inner=0.42)],
    "cross": [
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip


# --- sentences --------------------------------------------------------------------------------------------------------


class _Phrases:
    """Words for the parts of a scene; every use may choose another synonym."""

    def __init__(self, scene: Scene, random_: random.Random) -> None:
        self._scene = scene
        self._random = random_

    def say(self, word: str) -> str:
        return self._random.choice(_SAME[word])

    def full(self, i: int) -> str:
        thing = self._scene.things[i]
        return f"a {self.say(thing.size)} {thing.colour} {self.say(thing.shape)}"

    def plain(self, i: int) -> str:
        thing = self._scene.things[i]
        return f"{'an' if thing.colour == 'orange' else 'a'} {thing.colour} {self.say(thing.shape)}"

    def in_colour(self, i: int) -> str:
        thing = self._scene.things[i]
        return f"a {self.say(thing.size)} {self.say(thing.shape)} in {thing.colour}"

    @property
    def place(self) -> str:
        return self.say(self._scene.layout)

    @property
    def picture(self) -> str:
        return self.say("picture")


_Wording = tuple[float, Callable[[_Phrases], str]]

_ALONE: tuple[_Wording, ...] = (
    (3, lambda p: f"there is {p.full(0)} {p.place}"),
    (3, lambda p: f"{p.full(0)} {p.place} of the {p.picture}"),
    (2, lambda p: f"the {p.picture} shows {p.full(0)} {p.place}"),
    (2, lambda p: f"{p.place} you can see {p.full(0)}"),
    (1, lambda p: f"{p.plain(0)} stands alone {p.place}"),
    (1, lambda p: f"somebody drew {p.in_colour(0)} {p.place}"),
    (1, lambda p: f"{p.in_colour(0)} and nothing else in the {p.picture}"),
)
_PAIR_ACROSS: tuple[_Wording, ...] = (
    (3, lambda p: f"{p.full(0)} is to the left of {p.full(1)}"),
    (2, lambda p: f"{p.full(1)} is to the right of {p.full(0)}"),
    (3, lambda p: f"{p.full(0)} next to {p.full(1)}"),
    (2, lambda p: f"the {p.picture} shows {p.plain(0)} beside {p.plain(1)}"),
    (2, lambda p: f"{p.plain(0)} on the left and {p.plain(1)} on the right"),
    (1, lambda p: f"there are two shapes side by side {p.plain(0)} and {p.plain(1)}"),
    (1, lambda p: f"on the right there is {p.plain(1)} and on the left {p.plain(0)}"),
)
_PAIR_DOWN: tuple[_Wording, ...] = (
    (3, lambda p: f"{p.full(0)} is above {p.full(1)}"),
    (3, lambda p: f"{p.full(0)} over {p.full(1)}"),
    (2, lambda p: f"{p.full(1)} is below {p.full(0)}"),
    (2, lambda p: f"the {p.picture} shows {p.plain(1)} under {p.plain(0)}"),
    (2, lambda p: f"{p.plain(0)} at the top and {p.plain(1)} at the bottom"),
    (1, lambda p: f"there are two shapes {p.plain(0)} on top of {p.plain(1)}"),
    (1, lambda p: f"at the bottom there is {p.plain(1)} and at the top {p.plain(0)}"),
)
_ROW: tuple[_Wording, ...] = (
    (3, lambda p: f"{p.plain(0)} {p.plain(1)} and {p.plain(2)} in a row"),
    (3, lambda p: f"from left to right there are {p.plain(0)} {p.plain(1)} and {p.plain(2)}"),
    (2, lambda p: f"{p.plain(1)} between {p.plain(0)} and {p.plain(2)}"),
    (2, lambda p: f"the {p.picture} shows three shapes with {p.plain(1)} in the middle"),
    (1, lambda p: f"three small shapes side by side the left one is {p.plain(0)}"),
    (1, lambda p: f"there is {p.plain(2)} to the right of {p.plain(1)} and {p.plain(0)}"),
)
_COLUMN: tuple[_Wording, ...] = (
    (3, lambda p: f"{p.plain(0)} {p.plain(1)} and {p.plain(2)} in a column"),
    (3, lambda p: f"from top to bottom there are {p.plain(0)} {p.plain(1)} and {p.plain(2)}"),
    (2, lambda p: f"{p.plain(1)} between {p.plain(0)} and {p.plain(2)}"),
    (2, lambda p: f"the {p.picture} shows three shapes with {p.plain(1)} in the middle"),
    (1, lambda p: f"a stack of three small shapes the top one is {p.plain(0)}"),
    (1, lambda p: f"there is {p.plain(2)} below {p.plain(1)} and {p.plain(0)}"),
)
_WORDINGS: dict[tuple[int, str | bool], tuple[_Wording, ...]] = {
    (1, False): _ALONE,
    (2, "across"): _PAIR_ACROSS,
    (2, "down"): _PAIR_DOWN,
    (3, "across"): _ROW,
    (3, "down"): _COLUMN,
}


def _weighted_order(wordings: list[_Wording], random_: random.Random) -> Iterator[Callable[[_Phrases], str]]:
    """All wordings, likely ones more often first: a weighted draw without replacement."""
    keys = {i: random_.random() ** (1 / weight) for i, (weight, _) in enumerate(wordings)}
    for i in sorted(keys, key=keys.__getitem__, reverse=True):
        yield wordings[i][1]

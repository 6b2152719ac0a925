"""The world of GuessWhat?! (de Vries et al. 2017): photographs in which people asked each other for an object."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lrl_plugins.tasks.captioning.images import FilePicture, Picture
from lrl_plugins.tasks.files import json_lines
from lrl_plugins.tasks.goal_oriented_questions.wording import END
from lrl_plugins.tasks.goal_oriented_questions.worlds import NO, UNKNOWN, YES, Box, Game, Turn, World

SAID = {"yes": YES, "no": NO, "n/a": UNKNOWN}
"""The answers of the files, in lower case, and what they are called here."""
TOGETHER = " , "
_PIECE = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]")
_EXPECTED = (
    'a game: {"id", "object_id", "status", "image": {"id", "width", "height"}, "objects": [{"id", "category", "bbox": '
    '[left, top, width, height]}], "qas": [{"question", "answer": Yes, No or N/A}]}'
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the objects of a photograph, and what was said about the hidden one."""

    categories: tuple[str, ...]
    """Of each object."""
    boxes: tuple[Box, ...]
    """Where each object is."""
    turns: tuple[Turn, ...]
    """What people asked and answered."""


class GuessWhatWorld(World):
    """Games that people played with photographs (GuessWhat?!; de Vries et al. 2017): one of 3 to 20 objects is hidden.

    The questioner sees the photograph, or where there are none reads the sorted categories of the objects. What people
    said is what is learnt to begin with. Nobody knows the answers to other questions, so LearnedOracle and
    LearnedGuesser play. Games without a question are left out.

    Args:
        path: Folder with the files below.
        train: JSON Lines of the training games in that folder, one game per line, .jsonl or .jsonl.gz.
        val: Of the validation games.
        test: Of the test games; None for none.
        pictures: Folder with the photographs, by the file name of their line, that of its coco_url, or {id}.jpg; None:
            the questioner sees none.
        only_successful: Whether games are left out in which people guessed wrong or gave up.
        fewest_objects: Games with fewer objects are left out.
        most_objects: Games with more objects are left out.
        min_count: Words that occur less often in the questions of train are unknown.
    """

    exact = False

    def __init__(
        self,
        path: str,
        train: str = "guesswhat.train.jsonl.gz",
        val: str = "guesswhat.valid.jsonl.gz",
        test: str | None = "guesswhat.test.jsonl.gz",
        pictures: str | None = None,
        only_successful: bool = True,
        fewest_objects: int = 3,
        most_objects: int = 20,
        min_count: int = 3,
    ) -> None:
        self.files = {"train": train, "val": val} | ({} if test is None else {"test": test})
        self.path, self.pictures = Path(path), None if pictures is None else Path(pictures)
        self.only_successful, self.min_count = only_successful, min_count
        self.fewest_objects, self.most_objects = fewest_objects, most_objects
        if not 2 <= fewest_objects <= most_objects:
            raise ValueError(
                f"GuessWhatWorld: got fewest_objects {fewest_objects} and most_objects {most_objects}, expected at "
                "least 2 and no more than most_objects. Correct the recipe."
            )

    def games(self, split: str) -> list[Game]:
        return self._games[split]

    def answer(self, game: Game, question: str, index: int) -> str:
        """What people answered about the hidden object; all else is unknown."""
        return dict(game.content.turns).get(asked(question), UNKNOWN) if index == game.hidden else UNKNOWN

    def questions(self, game: Game) -> Sequence[str]:
        return tuple(dict.fromkeys(question for question, _ in game.content.turns))

    def dialogue(self, game: Game) -> Sequence[Turn]:
        return game.content.turns

    def texts(self, games: Mapping[str, Sequence[Game]]) -> set[str]:
        """The categories of train, and the words that are frequent there."""
        said = Counter(
            word for game in games["train"] for question, _ in game.content.turns for word in question.split()
        )
        categories = {category for game in games["train"] for category in game.content.categories}
        return {TOGETHER} | categories | {word for word, count in said.items() if count >= self.min_count}

    def category(self, game: Game, index: int) -> str:
        return game.content.categories[index]

    def box(self, game: Game, index: int) -> Box:
        return game.content.boxes[index]

    @cached_property
    def _games(self) -> dict[str, list[Game]]:
        read = {split: self._read(str(self.path / file)) for split, file in self.files.items()}
        return {"test": []} | read

    def _read(self, path: str) -> list[Game]:
        games = []
        for number, row in json_lines(path, "GuessWhatWorld"):
            try:
                game = self._game(row)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(
                    f"GuessWhatWorld: got line {number} of {path} with {what}; expected {_EXPECTED}. Correct the line, "
                    "or take it out."
                ) from error
            if game is not None:
                games.append(game)
        return games

    def _game(self, row: dict[str, Any]) -> Game | None:
        """The game of a line; None where it is left out."""
        image, things = row["picture"] if "picture" in row else row["image"], _listed(row["objects"])
        turns = tuple((asked(qa["question"]), _said(qa["answer"])) for qa in row["qas"])
        if not turns or not self.fewest_objects <= len(things) <= self.most_objects:
            return None
        if self.only_successful and row["status"] != "success":
            return None
        hidden = [index for index, (name, _) in enumerate(things) if name == str(row["object_id"])]
        if len(hidden) != 1:
            raise ValueError(f"object_id {row['object_id']!r}, which {len(hidden)} of its objects have")
        categories = tuple(_filled(thing["category"], "category") for _, thing in things)
        boxes = tuple(_box(thing["bbox"], image["width"], image["height"]) for _, thing in things)
        picture = None if self.pictures is None else _picture(self.pictures, image)
        told = "" if picture else TOGETHER.join(sorted(categories))
        return Game(str(row["id"]), numbered(categories), hidden[0], Seen(categories, boxes, turns), told, picture)


def asked(question: str) -> str:
    """A question of people in the form that questioners speak: lower case, one question mark, at the end."""
    return " ".join([piece for piece in _PIECE.findall(question.lower()) if piece != END] + [END])


def numbered(categories: Sequence[str]) -> tuple[str, ...]:
    """Names for people: a category that several objects have is followed by a number."""
    counts, seen, names = Counter(categories), Counter[str](), []
    for category in categories:
        seen[category] += 1
        names.append(category if counts[category] == 1 else f"{category} {seen[category]}")
    return tuple(names)


def _listed(objects: Any) -> list[tuple[str, dict[str, Any]]]:
    """Ids and objects, of a list or of a mapping."""
    if isinstance(objects, dict):
        return [(str(thing.get("id", key)), thing) for key, thing in objects.items()]
    return [(str(thing["id"]), thing) for thing in objects]


def _said(answer: str) -> str:
    if answer.lower() not in SAID:
        raise ValueError(f"the answer {answer!r}")
    return SAID[answer.lower()]


def _filled(text: Any, name: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the {name} {text!r}")
    return " ".join(text.lower().split())


def _box(box: Any, across: float, down: float) -> Box:
    if len(box) != 4 or min(across, down) <= 0:
        raise ValueError(f"the bbox {box!r} in a picture of {across!r} x {down!r}")
    left, top, width, height = map(float, box)
    return left / across, top / down, width / across, height / down


def _picture(folder: Path, image: dict[str, Any]) -> Picture:
    named = (image.get("file_name"), str(image.get("coco_url", "")).rpartition("/")[2], f"{image['id']}.jpg")
    files = [folder / name for name in named if name]
    for file in files:
        if file.is_file():
            return FilePicture(file)
    raise ValueError(f"a picture that is none of {', '.join(map(str, files))}")

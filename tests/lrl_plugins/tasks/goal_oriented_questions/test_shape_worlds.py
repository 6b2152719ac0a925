import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lrl_plugins.tasks.captioning.scenes import COLOURS
from lrl_plugins.tasks.goal_oriented_questions.data import GoalOrientedQuestions
from lrl_plugins.tasks.goal_oriented_questions.nlvr import NlvrWorld
from lrl_plugins.tasks.goal_oriented_questions.scenes import SceneWorld

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data" / "nlvr"
RGB = {"yellow": (255, 255, 0), "blue": (0, 153, 255), "black": (0, 0, 0)}
BOXES = [
    [["circle", "yellow", 10, 0, 0], ["square", "blue", 20, 70, 80]],
    [],
    [["triangle", "black", 30, 35, 10]],
]


def yes(world, game, index):
    """The questions with the answer yes about one object."""
    answers = {question: world.answer(game, question, index) for question in world.questions(game)}
    assert set(answers.values()) <= {"yes", "no"}
    return {question for question, answer in answers.items() if answer == "yes"}


def test_scenes_have_several_shapes_and_no_scene_is_in_two_splits():
    world = SceneWorld(60, 20, 20)
    splits = {split: world.games(split) for split in ("train", "val", "test")}
    assert {split: len(games) for split, games in splits.items()} == {"train": 60, "val": 20, "test": 20}
    scenes = [game.picture.scene for games in splits.values() for game in games]
    assert len(set(scenes)) == 100
    assert {len(game.objects) for game in splits["train"]} == {2, 3}
    assert {game.hidden for game in splits["train"]} == {0, 1, 2}
    assert world.games("train") == splits["train"]
    assert SceneWorld(20, 0, 0).games("train") == splits["train"][:20]
    assert SceneWorld(20, 0, 0).games("val") == []


def test_answers_are_those_of_the_scene():
    world = SceneWorld(60, 1, 1)
    for game in world.games("train"):
        scene = game.picture.scene
        for index, thing in enumerate(scene.things):
            said = yes(world, game, index)
            assert {f"is it {thing.colour} ?", f"is it a {thing.shape} ?", f"is it {thing.size} ?"} < said
            assert len(said) == 4
    assert world.answer(game, "is it heavy ?", 0) == "unknown"
    assert world.answer(game, "is it red", 0) == "unknown"


def test_places_are_where_the_picture_shows_the_shape():
    """The colour that a question names is found in the half of the picture that the place names."""
    world = SceneWorld(40, 1, 1)
    sides = {"on the left": (slice(None), slice(0, 20)), "on the right": (slice(None), slice(28, 48)),
             "at the top": (slice(0, 20), slice(None)), "at the bottom": (slice(28, 48), slice(None)),
             "in the middle": (slice(14, 34), slice(14, 34))}  # fmt: skip
    seen = set()
    for game in world.games("train"):
        pixels = np.asarray(game.picture.load()).astype(int)
        for index, shape in enumerate(game.content):
            (place,) = [place for place in sides if world.answer(game, f"is it {place} ?", index) == "yes"]
            part = pixels[sides[place]]
            assert (np.abs(part - COLOURS[shape.colour]).max(2) < 8).sum() > 3
            seen.add(place)
    assert seen == set(sides)


@pytest.fixture
def corpus(tmp_path):
    """Files in the layout of the corpus: a scene in dev, one like it in test, and twenty others in hidden."""
    others = [[[["square", "blue", 20, n, 0], ["square", "blue", 20, n, 50]], [], []] for n in range(20)]
    for name, scenes in {"dev": [BOXES], "test": [BOXES, others[0]], "hidden": others}.items():
        rows = [{"i": i, "boxes": boxes, "sentence": "x", "label": True} for i, boxes in enumerate(scenes)]
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.write("\n".join(map(json.dumps, rows)))
        images = np.zeros((len(scenes), 50, 200, 3), dtype=np.uint8)
        for box, value in enumerate((10, 20, 30)):
            images[:, :, 75 * box : 75 * box + 50] = value
        np.savez(tmp_path / f"{name}_images.npz", images=images)
    return tmp_path


def test_nlvr_answers_are_those_of_the_boxes(corpus):
    world = NlvrWorld(str(corpus))
    game = world.games("test")[0]
    assert game.objects[0] == "small yellow circle in the first box in the left half in the upper half"
    assert yes(world, game, 0) == {
        "is it yellow ?", "is it a circle ?", "is it small ?", "is it in the first box ?", "is it in the left half ?",
        "is it in the upper half ?",
    }  # fmt: skip
    assert {"is it medium ?", "is it in the right half ?", "is it in the lower half ?"} < yes(world, game, 1)
    # a triangle of 30 that begins at 35 is in neither half
    assert yes(world, game, 2) == {
        "is it black ?", "is it a triangle ?", "is it large ?", "is it in the third box ?", "is it in the upper half ?"
    }  # fmt: skip


def test_nlvr_scenes_are_in_one_split_each(corpus):
    world = NlvrWorld(str(corpus), held_out=0.5)
    splits = {split: world.games(split) for split in ("train", "val", "test")}
    assert len(splits["test"]) == 2
    assert len(splits["train"]) + len(splits["val"]) == 19
    assert min(len(games) for games in splits.values()) > 0
    assert {game.id.split("-")[0] for game in splits["train"] + splits["val"]} == {"hidden"}


def test_nlvr_pictures_are_square_with_two_boxes_above_and_one_below(corpus):
    game = NlvrWorld(str(corpus)).games("test")[0]
    pixels = np.asarray(game.picture.load())
    assert pixels.shape == (104, 104, 3)
    assert (pixels[:50, :50] == 10).all()
    assert (pixels[:50, 54:] == 20).all()
    assert (pixels[54:, :50] == 30).all()
    assert (pixels[54:, 54:] == 128).all()
    assert (pixels[50:54] == 128).all()
    assert game.picture.check() is None


def test_malformed_scenes_are_refused(corpus):
    for row, said in [
        ({"i": 0}, r"line 1 of test\.jsonl\.gz with boxes None"),
        ({"i": 0, "boxes": [[["circle", "blue", 11, 0, 0]], [], []]}, "KeyError: 11"),
        ({"boxes": BOXES}, "no number 'i' in line 1"),
    ]:
        with gzip.open(corpus / "test.jsonl.gz", "wt") as file:
            file.write(json.dumps(row))
        with pytest.raises(ValueError, match=rf"NlvrWorld: got .*{said}"):
            NlvrWorld(str(corpus)).games("train")


def test_nlvr_as_it_is_published():
    if not SHARED.is_dir():
        pytest.skip("the data set nlvr is not here")
    world = NlvrWorld(str(SHARED))
    assert {split: len(world.games(split)) for split in ("train", "val", "test")} == {
        "train": 1742, "val": 203, "test": 987
    }  # fmt: skip
    with gzip.open(SHARED / "test.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    for game in world.games("test")[:20]:
        pixels = np.asarray(game.picture.load())
        objects = [
            (box, *one) for box, shapes in enumerate(rows[int(game.id.split("-")[1])]["boxes"]) for one in shapes
        ]
        for index, (box, kind, colour, size, x, y) in enumerate(objects):
            row, column = (54 * (box // 2) + (y + size / 2) / 2, 54 * (box % 2) + (x + size / 2) / 2)
            assert tuple(pixels[int(row), int(column)]) == RGB[colour]
            assert world.answer(game, f"is it {colour} ?", index) == world.answer(game, f"is it a {kind} ?", index)


def test_nlvr_plays():
    if not SHARED.is_dir():
        pytest.skip("the data set nlvr is not here")
    task = GoalOrientedQuestions(NlvrWorld(str(SHARED)), image_size=104, batch_size=2)
    batch = next(iter(task.val_dataloader()))
    assert batch.features["pixels"].shape == (2, 3, 104, 104)
    first = np.asarray(task.games["val"][0].picture.load())
    assert isinstance(task.games["val"][0].picture.load(), Image.Image)
    np.testing.assert_allclose(batch.features["pixels"][0].permute(1, 2, 0), first / 127.5 - 1, atol=1e-5)

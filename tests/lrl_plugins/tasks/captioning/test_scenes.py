import re
from itertools import combinations

import numpy as np
import pytest

from lrl_core.tokenizer import words
from lrl_plugins.tasks.captioning.scenes import COLOURS, SHAPES, DrawnPicture, Scene, Thing, describe, scenes


@pytest.fixture(scope="module")
def drawn():
    return scenes("train", 600, seed=0)


def test_scenes_are_a_function_of_split_and_seed(drawn):
    assert scenes("train", 20, seed=0) == drawn[:20]
    assert scenes("train", 20, seed=1) != drawn[:20]
    assert [describe(scene, 0) for scene in drawn[:5]] == [describe(scene, 0) for scene in scenes("train", 5, 0)]
    assert np.array_equal(*(np.array(DrawnPicture(drawn[0], 48).load()) for _ in range(2)))


def test_no_scene_is_in_two_splits_or_twice_in_one_whatever_the_seed(drawn):
    val, test = set(scenes("val", 100, seed=3)), set(scenes("test", 100, seed=4))
    assert len(set(drawn)) == 600
    assert not set(drawn) & val
    assert not set(drawn) & test
    assert not val & test


def test_there_are_one_two_and_three_things(drawn):
    assert {len(scene.things) for scene in drawn} == {1, 2, 3}


def test_five_different_sentences_of_fitting_length_from_a_small_vocabulary(drawn):
    captions = [describe(scene, 0) for scene in drawn]
    assert {len(set(five)) for five in captions} == {5}
    lengths = {len(words(caption)) for five in captions for caption in five}
    assert min(lengths) >= 6
    assert max(lengths) <= 16
    vocabulary = {word for five in captions for caption in five for word in words(caption)}
    assert 60 <= len(vocabulary) <= 100


def test_sentences_say_only_what_is_there(drawn):
    said = {"disc": "circle", "box": "square", "plus": "cross", "big": "large", "little": "small", "tiny": "small"}
    for scene in drawn:
        true = {value for thing in scene.things for value in (thing.shape, thing.colour, thing.size)}
        names = {said.get(word, word) for caption in describe(scene, 0) for word in words(caption)}
        facts = names & {*COLOURS, *SHAPES, "small", "large"}
        assert facts <= true
        assert {thing.colour for thing in scene.things} <= facts


PAIR = (Thing("circle", "red", "small"), Thing("star", "blue", "large"))


@pytest.mark.parametrize(
    ("layout", "allowed"),
    [
        ("across", ["red .* left of .* blue", "blue .* right of .* red", "red .* (next to|beside) .* blue",
                    "red .* on the left and .* blue .* on the right", "side by side .* red .* blue",
                    "on the right .* blue .* on the left .* red"]),
        ("down", ["red .* (above|over|on top of) .* blue", "blue .* (below|under) .* red",
                  "red .* top and .* blue .* bottom", "bottom .* blue .* top .* red"]),
    ],
)  # fmt: skip
def test_relations_go_the_right_way(layout, allowed):
    for seed in range(30):
        for caption in describe(Scene(PAIR, layout), seed):
            assert any(re.search(pattern, caption) for pattern in allowed), caption


def centre(scene, colour, size=48):
    """Mean (x, y) of the pixels of a colour, from 0 to 1."""
    pixels = np.array(DrawnPicture(scene, size).load()).astype(int)
    rows, columns = (np.abs(pixels - COLOURS[colour]).sum(-1) < 40).nonzero()
    assert len(rows) > 5, f"{colour} is not in the picture"
    return columns.mean() / size, rows.mean() / size


def test_things_stand_where_the_scene_says(drawn):
    for scene in drawn[:200]:
        colours = [thing.colour for thing in scene.things]
        if len(set(colours)) < len(colours):
            continue
        at = [centre(scene, colour) for colour in colours]
        if scene.layout in ("across", "down"):
            along = [x if scene.layout == "across" else y for x, y in at]
            assert along == sorted(along)
        else:
            x, y = at[0]
            where = {"left": x < 0.35, "right": x > 0.65, "top": y < 0.35, "bottom": y > 0.65}
            assert where.get(scene.layout, 0.4 < x < 0.6 and 0.4 < y < 0.6)


@pytest.mark.parametrize("shape", SHAPES)
def test_large_covers_more_than_small(shape):
    areas = {}
    for size in ("small", "large"):
        pixels = np.array(DrawnPicture(Scene((Thing(shape, "black", size),), "middle"), 48).load())
        areas[size] = (pixels.sum(-1) < 200).mean()
    assert 2.5 < areas["large"] / areas["small"] < 5


def test_shapes_look_different():
    pictures = [np.array(DrawnPicture(Scene((Thing(s, "black", "large"),), "middle"), 48).load()) for s in SHAPES]
    masks = [picture.astype(int).sum(-1) < 200 for picture in pictures]
    assert all((a != b).sum() > 30 for a, b in combinations(masks, 2))


@pytest.mark.parametrize("size", [24, 64])
def test_canvas_has_the_size_asked_for(size):
    assert DrawnPicture(Scene(PAIR, "down"), size).load().size == (size, size)

import json

import numpy as np
import pytest
from PIL import Image

from lrl_plugins.tasks.captioning.sources import CocoAnnotations, DrawnScenes, JsonLines, KarpathySplit


def write_json(path, data):
    path.write_text(json.dumps(data))
    return str(path)


def write_images(folder, *names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(folder / name)
    return str(folder)


def coco(*ids, captions=2):
    return {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in ids],
        "annotations": [{"image_id": i, "caption": f"caption {k} of {i}"} for k in range(captions) for i in ids],
    }


def listed(splits):
    return {split: [(image.id, *image.captions) for image in images] for split, images in splits.items()}


def test_drawn_scenes_grow_without_changing():
    small, large = DrawnScenes(3, 2, 2).splits(), DrawnScenes(5, 4, 2).splits()
    assert {split: len(images) for split, images in large.items()} == {"train": 5, "val": 4, "test": 2}
    assert all(large[split][: len(images)] == images for split, images in small.items())
    assert large["train"][0].picture.load().size == (48, 48)


def test_coco_joins_captions_with_pictures(tmp_path):
    source = CocoAnnotations(
        write_json(tmp_path / "train.json", coco(4, 9)),
        write_json(tmp_path / "val.json", coco(5, captions=1)),
        write_images(tmp_path / "train", "4.png", "9.png"),
        write_images(tmp_path / "val", "5.png"),
    )
    splits = source.splits()
    assert listed(splits) == {
        "train": [("4", "caption 0 of 4", "caption 1 of 4"), ("9", "caption 0 of 9", "caption 1 of 9")],
        "val": [("5", "caption 0 of 5")],
    }
    assert [image.picture.check() for image in splits["train"] + splits["val"]] == [None] * 3
    assert splits["train"][1].picture.load().getpixel((0, 0)) == (40, 0, 0)


def test_coco_mistakes_are_named(tmp_path):
    good = write_json(tmp_path / "good.json", coco(1))
    stray = coco(1)
    stray["annotations"].append({"image_id": 77, "caption": "x"})
    wordless = coco(1)
    del wordless["annotations"][0]["caption"]
    for name, data, said in [
        ("stray.json", stray, "caption of image 77"),
        ("wordless.json", wordless, "entry without 'caption'"),
        ("boxes.json", {"images": []}, "without a list annotations"),
        ("list.json", [], "without a list images and annotations"),
    ]:
        path = write_json(tmp_path / name, data)
        with pytest.raises(ValueError, match=rf"got .*{said}.*expected") as error:
            CocoAnnotations(good, path).splits()
        assert name in str(error.value)
    (tmp_path / "cut.json").write_text('{"images": [')
    for name in ("cut.json", "absent.json"):
        with pytest.raises(ValueError, match=rf"Captions: got .*{name}.*expected.*(Copy|Correct)"):
            CocoAnnotations(str(tmp_path / name), good).splits()


def karpathy(row, **more):
    return {"filename": f"{row}.png", "sentences": [{"raw": f"this is {row}", "tokens": []}], **more}


def test_karpathy_split_with_folders_and_restval(tmp_path):
    rows = [
        karpathy("a", split="train", filepath="train2014", cocoid=11),
        karpathy("b", split="restval", filepath="val2014", cocoid=12),
        karpathy("c", split="val", filepath="val2014", cocoid=13),
        karpathy("d", split="test", filepath="val2014", cocoid=14),
    ]
    path = write_json(tmp_path / "dataset_coco.json", {"images": rows})
    folder = write_images(tmp_path / "coco", "train2014/a.png", "val2014/b.png", "val2014/c.png", "val2014/d.png")
    splits = KarpathySplit(path, folder).splits()
    assert listed(splits) == {
        "train": [("11", "this is a"), ("12", "this is b")], "val": [("13", "this is c")], "test": [("14", "this is d")]
    }  # fmt: skip
    assert all(image.picture.check() is None for images in splits.values() for image in images)
    assert len(KarpathySplit(path, folder, restval_in_train=False).splits()["train"]) == 1
    flat = write_images(tmp_path / "flat", "a.png")
    assert KarpathySplit(path, flat).splits()["train"][0].picture.check() is None


def test_karpathy_split_of_flickr_and_a_wrong_split(tmp_path):
    path = write_json(tmp_path / "f.json", {"images": [karpathy("a_1", split="train"), karpathy("b", split="val")]})
    splits = KarpathySplit(path, write_images(tmp_path / "images", "a_1.png", "b.png")).splits()
    assert [image.id for image in splits["train"]] == ["a_1"]
    assert splits["train"][0].picture.check() is None
    bad = write_json(tmp_path / "bad.json", {"images": [karpathy("a", split="trian")]})
    with pytest.raises(ValueError, match=r"'trian' of a\.png in .*bad\.json, expected train, restval"):
        KarpathySplit(bad).splits()


def write_lines(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return str(path)


def test_json_lines_with_an_array_and_several_caption_fields(tmp_path):
    path = write_lines(
        tmp_path / "x.jsonl",
        {"i": 1, "name": "a dog", "tags": ["pet", " "], "split": "train"},
        {"i": 0, "name": "a\u2028cat", "tags": None, "split": "validation"},
    )
    np.savez(tmp_path / "images.npz", images=np.stack([np.full((4, 4, 3), 9 * i, np.uint8) for i in range(2)]))
    splits = JsonLines(path, str(tmp_path / "images.npz"), captions_fields=["name", "tags"]).splits()
    assert listed(splits) == {"train": [("1", "a dog", "pet")], "val": [("0", "a\u2028cat")], "test": []}
    assert splits["train"][0].picture.load().getpixel((0, 0)) == (9, 9, 9)


def test_json_lines_without_a_split_field_are_shared_out_by_id(tmp_path):
    def sizes(order):
        rows = [{"i": i, "captions": ["x"]} for i in order]
        splits = JsonLines(write_lines(tmp_path / "x.jsonl", *rows), split_field=None, held_out=0.2).splits()
        return {split: {image.id for image in images} for split, images in splits.items()}

    forward = sizes(range(500))
    assert forward == sizes(reversed(range(500)))
    assert sum(map(len, forward.values())) == 500
    assert 70 < len(forward["val"]) < 130
    assert 70 < len(forward["test"]) < 130


def test_json_lines_mistakes_are_named_with_their_line(tmp_path):
    good = {"i": 0, "captions": ["x"], "split": "train"}
    for row, said in [
        ({**good, "split": "trian"}, "got split 'trian' in line 3 of .*set split_field"),
        ({"i": 0, "split": "train"}, "no field 'captions' in line 3 of .*captions_fields"),
        ([1], "got a list in line 3 of"),
    ]:
        path = write_lines(tmp_path / "x.jsonl", good, good, row)
        with pytest.raises(ValueError, match=f"JsonLines: {said}" if "got" in said else said):
            JsonLines(path).splits()
    (tmp_path / "y.jsonl").write_text(json.dumps(good) + "\n\n{broken\n")
    with pytest.raises(ValueError, match=r"line 3 of .*y\.jsonl, which is no JSON.*Correct the line"):
        JsonLines(str(tmp_path / "y.jsonl")).splits()

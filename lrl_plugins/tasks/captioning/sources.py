"""Where captions and their pictures come from: one class per file layout, all giving the same three lists."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrl_plugins.tasks.captioning.images import Picture, pictures_in
from lrl_plugins.tasks.captioning.scenes import DrawnPicture, describe, scenes
from lrl_plugins.tasks.files import SPLITS, json_lines, place, read_text


@dataclass(frozen=True)
class CaptionedImage:
    """One picture and what people say of it."""

    id: str
    """Its name in logs, in feature files and in metrics."""
    captions: tuple[str, ...]
    """All its captions."""
    picture: Picture | None
    """Where its pixels are; None where only features are given."""


class Source(ABC):
    """A place that captions come from."""

    @abstractmethod
    def splits(self) -> dict[str, list[CaptionedImage]]:
        """The images of "train", "val" and, where there are some, "test". Read anew at every call."""


class DrawnScenes(Source):
    """Drawn coloured shapes with five differently worded sentences each; needs no files.

    Args:
        train: Training images.
        val: Validation images.
        test: Test images; no scene is in two splits.
        seed: Other seeds give other scenes and wordings; what is in val or test never gets into train.
        size: Height and width in pixels.
    """

    def __init__(self, train: int = 2000, val: int = 200, test: int = 200, seed: int = 0, size: int = 48) -> None:
        self.counts = {"train": train, "val": val, "test": test}
        self.seed = seed
        self.size = size

    def splits(self) -> dict[str, list[CaptionedImage]]:
        return {split: self._images(split, count) for split, count in self.counts.items()}

    def _images(self, split: str, count: int) -> list[CaptionedImage]:
        return [
            CaptionedImage(f"{split}-{i}", describe(scene, self.seed), DrawnPicture(scene, self.size, self.seed))
            for i, scene in enumerate(scenes(split, count, self.seed))
        ]


class CocoAnnotations(Source):
    """COCO caption annotations: JSON with `images` (id, file_name) and `annotations` (image_id, caption).

    Args:
        train_annotations: JSON of the training captions.
        val_annotations: JSON of the validation captions.
        train_images: Folder or .tar of the training pictures; None where features stand in for them.
        val_images: Folder or .tar of the validation pictures; None = where the training pictures are.
        test_annotations: JSON of the test captions; None where there are none.
        test_images: Folder or .tar of the test pictures; None = where the validation pictures are.
    """

    def __init__(
        self,
        train_annotations: str,
        val_annotations: str,
        train_images: str | None = None,
        val_images: str | None = None,
        test_annotations: str | None = None,
        test_images: str | None = None,
    ) -> None:
        val_images = val_images or train_images
        self.files = {
            "train": (train_annotations, train_images),
            "val": (val_annotations, val_images),
            "test": (test_annotations, test_images or val_images),
        }

    def splits(self) -> dict[str, list[CaptionedImage]]:
        return {split: self._images(file, images) for split, (file, images) in self.files.items() if file is not None}

    def _images(self, file: str, images: str | None) -> list[CaptionedImage]:
        data = _read_json(file, ("images", "annotations"))
        files = {_get(row, "id", file): _get(row, "file_name", file) for row in data["images"]}
        captions: dict[Any, list[str]] = {name: [] for name in files}
        for row in data["annotations"]:
            name = _get(row, "image_id", file)
            if name not in captions:
                raise ValueError(
                    f"CocoAnnotations: got a caption of image {name} in {file}, expected an image of its list "
                    "`images`. Add the image or take the caption out."
                )
            captions[name].append(_get(row, "caption", file))
        return _captioned([(str(name), files[name], captions[name]) for name in files], images)


class KarpathySplit(Source):
    """A Karpathy split (dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json).

    An image's id is its COCO id where it has one, else its file name without the ending.

    Args:
        annotations: The JSON file.
        images: Folder of the pictures (for COCO the one with train2014 and val2014 in it) or .tar of them; None where
            features stand in for them.
        restval_in_train: Whether the images of `restval` are trained on, as is usual.
    """

    def __init__(self, annotations: str, images: str | None = None, restval_in_train: bool = True) -> None:
        self.annotations = annotations
        self.images = images
        self.restval_in_train = restval_in_train

    def splits(self) -> dict[str, list[CaptionedImage]]:
        rows: dict[str, list[tuple[str, str, list[str]]]] = {"train": [], "val": [], "test": []}
        for row in _read_json(self.annotations, ("images",))["images"]:
            split, filename, sentences = (
                _get(row, key, self.annotations) for key in ("split", "filename", "sentences")
            )
            if split == "restval" and not self.restval_in_train:
                continue
            split = "train" if split == "restval" else split
            if split not in rows:
                raise ValueError(
                    f"KarpathySplit: got split {split!r} of {filename} in {self.annotations}, expected train, "
                    "restval, val or test. Correct the file."
                )
            name = str(row["cocoid"]) if "cocoid" in row else Path(filename).stem
            captions = [_get(sentence, "raw", self.annotations) for sentence in sentences]
            rows[split].append((name, self._file(row.get("filepath", ""), filename), captions))
        return {split: _captioned(listed, self.images) for split, listed in rows.items()}

    def _file(self, folder: str, filename: str) -> str:
        """Below the folder that the row names, where it names one and the images lie so."""
        flat = self.images is not None and Path(self.images).is_dir() and not (Path(self.images) / folder).is_dir()
        return filename if flat or not folder else f"{folder}/{filename}"


class JsonLines(Source):
    """Captions in JSON Lines (.jsonl or .jsonl.gz), pictures in a folder, a tar archive or an array.

    Args:
        path: The file; one object per line.
        images: Folder or .tar (image_field holds file names), .npz or .npy (image_field holds row numbers); None
            where features stand in for them.
        image_field: Field with the picture's file name or row number.
        captions_fields: Fields with captions, each a text or a list of texts; empty ones are passed over.
        id_field: Field with the image's id; None = image_field.
        split_field: Field with the split (train, val or validation or dev, test); None = drawn by the id's hash.
        held_out: Share of the images that become val, and as large a one test, where split_field is None.
        array: Name of the array in an .npz.
    """

    def __init__(
        self,
        path: str,
        images: str | None = None,
        image_field: str = "i",
        captions_fields: list[str] | None = None,
        id_field: str | None = None,
        split_field: str | None = "split",
        held_out: float = 0.1,
        array: str = "images",
    ) -> None:
        self.path = path
        self.images = images
        self.image_field = image_field
        self.captions_fields = captions_fields or ["captions"]
        self.id_field = id_field or image_field
        self.split_field = split_field
        self.held_out = held_out
        self.array = array

    def splits(self) -> dict[str, list[CaptionedImage]]:
        rows: dict[str, list[tuple[str, str | int, list[str]]]] = {"train": [], "val": [], "test": []}
        for number, row in json_lines(self.path, "JsonLines"):
            name = str(self._field(row, self.id_field, number))
            image = self._field(row, self.image_field, number)
            rows[self._split(row, name, number)].append((name, image, self._captions(row, number)))
        return {split: _captioned(listed, self.images, self.array) for split, listed in rows.items()}

    def _captions(self, row: dict[str, Any], number: int) -> list[str]:
        values = [self._field(row, field, number) for field in self.captions_fields]
        return [text for value in values for text in ([value] if isinstance(value, str) else value or [])]

    def _split(self, row: dict[str, Any], name: str, number: int) -> str:
        if self.split_field is None:
            share = place(name)
            return "val" if share < self.held_out else "test" if share < 2 * self.held_out else "train"
        split = self._field(row, self.split_field, number)
        if split not in SPLITS:
            raise ValueError(
                f"JsonLines: got split {split!r} in line {number} of {self.path}, expected one of {', '.join(SPLITS)}. "
                "Correct the line, or set split_field to another field or to null."
            )
        return SPLITS[split]

    def _field(self, row: dict[str, Any], field: str, number: int) -> Any:
        if field not in row:
            raise ValueError(
                f"JsonLines: got no field {field!r} in line {number} of {self.path}, expected one among its fields "
                f"{', '.join(row)}. Set image_field, id_field, captions_fields and split_field to what the file has."
            )
        return row[field]


def _captioned(
    rows: list[tuple[str, Any, list[str]]], images: str | None, array: str = "images"
) -> list[CaptionedImage]:
    pictures = pictures_in(images, [image for _, image, _ in rows], array) if images else [None] * len(rows)
    return [
        CaptionedImage(name, tuple(text for text in captions if text.strip()), picture)
        for (name, _, captions), picture in zip(rows, pictures, strict=True)
    ]


def _get(row: dict[str, Any], key: str, file: str) -> Any:
    if key not in row:
        raise ValueError(
            f"Captions: got an entry without {key!r} in {file} (it has {', '.join(row)}), expected one. Check that it "
            "is a caption annotation file of the layout that `source` names."
        )
    return row[key]


def _read_json(path: str, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path, "Captions", "a JSON file"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Captions: got {path}, which is no JSON ({error}), expected an annotation file. Copy it again."
        ) from error
    absent = [key for key in keys if not isinstance(data, dict) or not isinstance(data.get(key), list)]
    if absent:
        raise ValueError(
            f"Captions: got {path} without a list {' and '.join(absent)}, expected {' and '.join(keys)}. Check that "
            "it is a caption annotation file of the layout that `source` names."
        )
    return data

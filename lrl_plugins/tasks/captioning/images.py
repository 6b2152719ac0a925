"""Pictures: where they lie, whether they can be read, and how they become the numbers that a policy sees."""

import io
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

CACHE_BYTES = 2**30
"""How much memory the decoded pictures of one split may hold."""


_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError)
"""What Pillow raises for files that are no whole image."""


class Picture(ABC):
    """One picture, not read yet."""

    @abstractmethod
    def load(self) -> Image.Image:
        """The picture in RGB."""

    def check(self) -> str | None:
        """What is wrong with it, told from its header; None where it can be read."""
        return None


@dataclass(frozen=True)
class FilePicture(Picture):
    """A picture in a file of its own."""

    path: Path
    """JPEG, PNG or whatever else Pillow reads."""

    def load(self) -> Image.Image:
        return _decoded(self.path.read_bytes(), self.path)

    def check(self) -> str | None:
        if not self.path.is_file():
            return f"{self.path} does not exist"
        try:
            with Image.open(self.path):
                return None
        except _UNREADABLE as error:
            return f"{self.path} is no readable image ({error})"


@dataclass(frozen=True)
class TarPicture(Picture):
    """A picture inside an uncompressed tar archive."""

    archive: Path
    """The archive."""
    name: str
    """Its name in there."""
    start: int
    """Where its bytes begin; -1 where the archive lacks it."""
    size: int
    """How many bytes it has."""

    def load(self) -> Image.Image:
        return _decoded(self._bytes(), f"{self.archive}:{self.name}")

    def check(self) -> str | None:
        if self.start < 0:
            return f"{self.archive} holds no {self.name}"
        try:
            Image.open(io.BytesIO(self._bytes()))
        except _UNREADABLE as error:
            return f"{self.archive}:{self.name} is no readable image ({error})"
        return None

    def _bytes(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


@dataclass(frozen=True, eq=False)
class ArrayPicture(Picture):
    """A row of an array of pictures."""

    array: UInt8[np.ndarray, "N H W 3"]
    """All pictures of the file."""
    row: int
    """Which of them."""
    where: Path
    """The file, for messages."""

    def load(self) -> Image.Image:
        return Image.fromarray(np.asarray(self.array[self.row]))

    def check(self) -> str | None:
        if 0 <= self.row < len(self.array):
            return None
        return f"{self.where} has rows 0 to {len(self.array) - 1}, no row {self.row}"


def pictures_in(where: str | Path, names: Sequence[str | int], array: str = "images") -> list[Picture]:
    """The named pictures of a folder, a tar archive (file names) or an array (row numbers in .npz or .npy).

    Args:
        where: Folder, .tar, .npz or .npy.
        names: File names or row numbers.
        array: Name of the array in an .npz.
    """
    where = Path(where)
    if not where.exists():
        raise ValueError(
            f"Images: got {where}, which does not exist, expected a folder, a .tar, an .npz or an .npy. Correct the "
            f"path; relative ones start at {Path.cwd()}."
        )
    if where.is_dir():
        return [FilePicture(where / str(name)) for name in names]
    if where.suffix == ".tar":
        members = _tar_members(where)
        return [TarPicture(where, str(name), *members.get(str(name), (-1, 0))) for name in names]
    pixels = _array(where, array)
    return [ArrayPicture(pixels, _row_number(name, where), where) for name in names]


class PixelReader:
    """Reads pictures at one size, normalised: shorter side to `size`, centre crop, (value - mean) / std per channel.

    Args:
        size: Height and width in pixels.
        mean: Of red, green and blue, on a scale of 0 to 1.
        std: Likewise.
        cache: Whether to keep the cropped pictures in memory, up to 1 GiB.
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], cache: bool) -> None:
        self.size = size
        self._mean = torch.tensor(mean).view(3, 1, 1)
        self._std = torch.tensor(std).view(3, 1, 1)
        self._room = CACHE_BYTES // (3 * size * size) if cache else 0
        self._kept: dict[int, UInt8[np.ndarray, "H W 3"]] = {}

    def read(self, key: int, picture: Picture) -> Float[Tensor, "3 H W"]:
        """The picture; `key` is its own number in the cache."""
        crop = self._kept.get(key)
        if crop is None:
            crop = np.array(fit(picture.load(), self.size))
            if len(self._kept) < self._room:
                self._kept[key] = crop
        pixels = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
        return (pixels - self._mean) / self._std


def fit(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, bicubic at `size` x `size`; left as it is where it has that size."""
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def _decoded(data: bytes, where: str | Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except _UNREADABLE as error:
        raise ValueError(
            f"Images: got {where}, which Pillow cannot decode ({error}), expected a whole image file. Copy the file "
            "again, or take it out of the annotations."
        ) from error


def _tar_members(where: Path) -> dict[str, tuple[int, int]]:
    """Where each file begins in an archive, and its size."""
    try:
        with tarfile.open(where, "r:") as archive:
            return {m.name.removeprefix("./"): (m.offset_data, m.size) for m in archive if m.isfile()}
    except tarfile.TarError as error:
        raise ValueError(
            f"Images: got {where}, which is no uncompressed tar archive ({error}), expected one. Unpack it and give "
            "the folder."
        ) from error


def _array(where: Path, name: str) -> UInt8[np.ndarray, "N H W 3"]:
    try:
        loaded = np.load(where, mmap_mode="r" if where.suffix == ".npy" else None, allow_pickle=False)
        pixels = loaded if isinstance(loaded, np.ndarray) else loaded[name]
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Images: got {where}, which cannot be read as pictures ({error}), expected a folder, an uncompressed .tar,"
            f" an .npy or an .npz with an array {name!r}. Correct the path or the array's name."
        ) from error
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"Images: got an array of shape {pixels.shape} and type {pixels.dtype} in {where}, expected uint8 "
            "[pictures, height, width, 3]. Convert the array."
        )
    return pixels


def _row_number(name: str | int, where: Path) -> int:
    try:
        return int(name)
    except ValueError as error:
        raise ValueError(
            f"Images: got {name!r} as a picture of {where}, expected a row number, as it is an array. Set image_field "
            "to the field with the row number, or images to the folder with the files."
        ) from error

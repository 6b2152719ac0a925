"""Precomputed image features: vectors of regions or of grid cells, looked up by the image's id."""

import json
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float


class FeatureFile:
    """Features of every image in one file or folder.

    Layouts that are understood, `ids` being image ids as text or numbers:
    .npz, .h5, .hdf5 with one array per image, named by its id; or with `ids` [N], `features` [N ...] and, where
    images have different numbers of regions, `lengths` [N]; .npy [N ...] with an ids file beside it; a folder with
    {id}.npy or {id}.npz per image (the first array of an .npz that is called feat, features or x, else its only one).
    One image's features are [D] (one region), [R, D] (regions) or [H, W, D] (grid cells, read row by row).

    Args:
        path: The file or folder.
        ids: JSON list or text file, one id per line, of an .npy's rows; None where the file names its images itself.
        max_regions: Leave out regions beyond this number; None keeps all.
    """

    def __init__(self, path: str, ids: str | None = None, max_regions: int | None = None) -> None:
        self.path = Path(path)
        self.ids = ids
        self.max_regions = max_regions

    def check(self, ids: Collection[str]) -> None:
        """Raise ValueError where images have no features."""
        missing = [name for name in ids if name not in self._table]
        if missing:
            raise ValueError(
                f"FeatureFile: got no features of {len(missing)} of {len(ids)} images in {self.path} (first: "
                f"{', '.join(missing[:3])}; the file has, for one, {next(iter(self._table), 'nothing')}), expected "
                "those of all. Extract the missing ones, or give the file whose ids are those of the captions."
            )

    def regions(self, name: str) -> Float[np.ndarray, "R D"]:
        """Features of one image."""
        array = np.asarray(self._table[name], dtype=np.float32)
        if array.ndim not in (1, 2, 3) or 0 in array.shape:
            raise ValueError(
                f"FeatureFile: got shape {array.shape} for image {name} in {self.path}, expected [D], [R, D] or "
                "[H, W, D], none of them 0. Extract its features again, the feature axis last."
            )
        return array.reshape(-1, array.shape[-1])[: self.max_regions]

    @cached_property
    def _table(self) -> Mapping[str, Any]:
        try:
            return self._open()
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"FeatureFile: got {self.path}, which cannot be read ({error}), expected a folder or an .npz, .npy, "
                ".h5 or .hdf5 in one of the layouts of `--help`. Correct the path; relative ones start at "
                f"{Path.cwd()}."
            ) from error

    def _open(self) -> Mapping[str, Any]:
        if self.path.is_dir():
            return _Folder(self.path)
        if self.path.suffix in (".h5", ".hdf5"):
            return _by_id(_Hdf5(self.path))
        loaded = np.load(self.path, mmap_mode="r" if self.path.suffix == ".npy" else None, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            return _by_id(_Npz(self.path, loaded.files))
        if self.ids is None:
            raise ValueError("an .npy does not name its images: set ids to the file with one id per row")
        return _Rows(loaded, _read_ids(Path(self.ids)), None)


class _Table(Mapping[str, Any], ABC):
    """Arrays by name, read one at a time."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name: i for i, name in enumerate(names)}

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    @abstractmethod
    def __getitem__(self, name: str) -> Any: ...


class _Rows(_Table):
    """One array whose rows are images."""

    def __init__(self, rows: Any, ids: Iterable[Any], lengths: Any) -> None:
        super().__init__(_text(name) for name in ids)
        if len(self) != len(rows) or (lengths is not None and len(lengths) != len(rows)):
            raise ValueError(f"{len(self)} different ids for {len(rows)} rows of features")
        self._rows = rows
        self._lengths = lengths

    def __getitem__(self, name: str) -> Any:
        row = self._names[name]
        return self._rows[row] if self._lengths is None else self._rows[row][: int(self._lengths[row])]


class _Npz(_Table):
    """An .npz, opened anew in every process that reads it."""

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        super().__init__(names)
        self._path = path
        self._file: tuple[int, Any] = (-1, None)

    def __getitem__(self, name: str) -> Any:
        if self._file[0] != os.getpid():
            self._file = (os.getpid(), self._opened())
        return self._file[1][name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": (-1, None)}

    def _opened(self) -> Any:
        return np.load(self._path, allow_pickle=False)


class _Hdf5(_Npz):
    """An HDF5 file, likewise: its handles survive neither fork nor pickling."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, ())
        with self._opened() as file:
            self._names = {name: i for i, name in enumerate(file)}

    def _opened(self) -> Any:
        try:
            import h5py
        except ImportError as error:
            raise ValueError("HDF5 needs h5py: pip install 'lrl[hdf5]'") from error
        return h5py.File(self._path, "r")


class _Folder(_Table):
    """A file per image."""

    def __init__(self, path: Path) -> None:
        found = sorted(file for file in path.iterdir() if file.suffix in (".npy", ".npz"))
        super().__init__(file.stem for file in found)
        self._files = found

    def __getitem__(self, name: str) -> Any:
        loaded = np.load(self._files[self._names[name]], allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        return loaded[next((key for key in ("feat", "features", "x") if key in loaded), loaded.files[0])]


def _by_id(table: _Npz) -> Mapping[str, Any]:
    """The table itself where arrays are named by image; its rows where it has `ids` and `features`."""
    if "ids" not in table or "features" not in table:
        return table
    lengths = np.asarray(table["lengths"]) if "lengths" in table else None
    # an HDF5 data set stays on disk, but its handle may not cross a fork: read rows through the table
    rows = table["features"] if not isinstance(table, _Hdf5) else _Hdf5Rows(table)
    return _Rows(rows, np.asarray(table["ids"]), lengths)


class _Hdf5Rows:
    """Rows of an HDF5 file's `features`, asked for anew each time."""

    def __init__(self, table: _Hdf5) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table["features"])

    def __getitem__(self, row: int) -> Any:
        return self._table["features"][row]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _read_ids(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [str(name) for name in (json.loads(text) if path.suffix == ".json" else text.split())]

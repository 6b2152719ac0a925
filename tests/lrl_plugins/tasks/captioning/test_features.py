import json
import pickle

import numpy as np
import pytest

from lrl_plugins.tasks.captioning.features import FeatureFile

h5py = pytest.importorskip("h5py")
RNG = np.random.default_rng(0)
FEATURES = {"7": RNG.normal(size=(3, 4)), "12": RNG.normal(size=(5, 4)), "139": RNG.normal(size=(1, 4))}


def padded():
    rows = np.full((3, 5, 4), 99.0)
    for i, features in enumerate(FEATURES.values()):
        rows[i, : len(features)] = features
    return {"ids": np.array([7, 12, 139]), "features": rows, "lengths": np.array([3, 5, 1])}


def write(tmp_path, layout):
    path = tmp_path / layout.replace(" ", ".")
    if layout == "named npz":
        np.savez(path, **FEATURES)
    elif layout == "padded npz":
        np.savez(path, **padded())
    elif layout == "folder":
        path.mkdir()
        np.save(path / "7.npy", FEATURES["7"])
        np.savez(path / "12.npz", feat=FEATURES["12"])
        np.savez(path / "139.npz", other=FEATURES["139"])
    else:
        with h5py.File(path, "w") as file:
            content = padded() if "padded" in layout else FEATURES
            for name, value in content.items():
                file[name] = np.array([b"7", b"12", b"139"]) if name == "ids" else value
    return str(path)


@pytest.mark.parametrize("layout", ["named npz", "padded npz", "folder", "named h5", "padded hdf5"])
def test_every_layout_gives_the_same_regions(tmp_path, layout):
    file = FeatureFile(write(tmp_path, layout))
    file.check(list(FEATURES))
    for copy in (file, pickle.loads(pickle.dumps(file))):
        for name, features in FEATURES.items():
            assert copy.regions(name).dtype == np.float32
            np.testing.assert_allclose(copy.regions(name), features, rtol=1e-6)


@pytest.mark.parametrize("names", ["ids.json", "ids.txt"])
def test_npy_takes_its_ids_from_a_file(tmp_path, names):
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(2, 3))
    (tmp_path / names).write_text(json.dumps([5, "b"]) if names.endswith("json") else "5\nb\n")
    file = FeatureFile(str(tmp_path / "x.npy"), ids=str(tmp_path / names))
    assert file.regions("b").tolist() == [[3.0, 4.0, 5.0]]
    with pytest.raises(ValueError, match="set ids to the file"):
        FeatureFile(str(tmp_path / "x.npy")).check(["5"])


def test_grid_cells_are_read_row_by_row_and_regions_can_be_cut(tmp_path):
    grid = np.arange(24.0).reshape(2, 3, 4)
    np.savez(tmp_path / "x.npz", a=grid)
    np.testing.assert_array_equal(FeatureFile(str(tmp_path / "x.npz")).regions("a"), grid.reshape(6, 4))
    cut = FeatureFile(str(tmp_path / "x.npz"), max_regions=2).regions("a")
    np.testing.assert_array_equal(cut, [[0, 1, 2, 3], [4, 5, 6, 7]])


def test_missing_ids_are_named(tmp_path):
    file = FeatureFile(write(tmp_path, "named npz"))
    with pytest.raises(ValueError, match=r"no features of 2 of 3 images in .*named\.npz.*first: 8, x;.*Extract"):
        file.check(["7", "8", "x"])


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    (tmp_path / "broken.h5").write_bytes(b"nonsense")
    for name in ("broken.npz", "broken.h5", "absent.npz"):
        with pytest.raises(ValueError, match=rf"FeatureFile: got .*{name}.*expected.*Correct the path"):
            FeatureFile(str(tmp_path / name)).check(["7"])


def test_ids_and_rows_must_match_and_features_must_not_be_empty(tmp_path):
    np.savez(tmp_path / "x.npz", ids=np.array([1, 1]), features=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="1 different ids for 2 rows"):
        FeatureFile(str(tmp_path / "x.npz")).check(["1"])
    np.savez(tmp_path / "y.npz", a=np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"shape \(0, 3\) for image a in .*expected \[D\], \[R, D\]"):
        FeatureFile(str(tmp_path / "y.npz")).regions("a")

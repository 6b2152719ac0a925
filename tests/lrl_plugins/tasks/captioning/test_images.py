import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from lrl_plugins.tasks.captioning import images
from lrl_plugins.tasks.captioning.images import ArrayPicture, PixelReader, fit, pictures_in

HALF = (0.5, 0.5, 0.5)


def test_fit_takes_the_middle_of_the_longer_side():
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 10:20] = 255
    assert (np.array(fit(Image.fromarray(stripes), 10)) == 255).all()
    upright = np.array(fit(Image.fromarray(stripes.transpose(1, 0, 2)), 5))
    assert upright.shape == (5, 5, 3)
    assert upright[1:4].min() > 250


def test_fit_leaves_a_picture_of_the_right_size_alone():
    noise = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.array(fit(Image.fromarray(noise), 7)), noise)


@pytest.mark.parametrize("size", [(3, 100), (100, 3), (1, 1), (97, 98)])
def test_fit_gives_a_square_whatever_the_shape(size):
    assert fit(Image.new("RGB", size), 13).size == (13, 13)


def test_pixels_are_normalised_per_channel(tmp_path):
    Image.new("RGB", (4, 4), (255, 0, 51)).save(tmp_path / "a.png")
    (picture,) = pictures_in(tmp_path, ["a.png"])
    pixels = PixelReader(4, (0.5, 0.5, 0.1), (0.5, 0.25, 0.1), cache=False).read(0, picture)
    assert pixels.shape == (3, 4, 4)
    torch.testing.assert_close(pixels[:, 2, 3], torch.tensor([1.0, -2.0, 1.0]))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    Image.new("RGB", (5, 5), (255, 255, 255)).convert(mode).save(tmp_path / "a.tiff")
    (picture,) = pictures_in(tmp_path, ["a.tiff"])
    assert picture.load().getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(("cache", "loads"), [(True, 1), (False, 2)])
def test_cache_decodes_once(monkeypatch, cache, loads):
    calls = []
    picture = ArrayPicture(np.full((1, 4, 4, 3), 255, np.uint8), 0, "a")
    monkeypatch.setattr(ArrayPicture, "load", lambda self: calls.append(1) or Image.new("RGB", (4, 4), (255, 0, 0)))
    reader = PixelReader(4, HALF, HALF, cache)
    assert torch.equal(reader.read(0, picture), reader.read(0, picture))
    assert len(calls) == loads


def test_cache_stops_at_its_limit(monkeypatch):
    monkeypatch.setattr(images, "CACHE_BYTES", 2 * 3 * 4 * 4)
    reader = PixelReader(4, HALF, HALF, cache=True)
    picture = ArrayPicture(np.zeros((1, 4, 4, 3), np.uint8), 0, "a")
    for key in range(5):
        reader.read(key, picture)
    assert len(reader._kept) == 2


def test_a_tar_reads_like_its_folder(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(tmp_path / name)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "a.png", "./a.png")
        archive.add(tmp_path / "b.png", "b.png")
    names = ["b.png", "a.png"]
    packed, plain = pictures_in(tmp_path / "all.tar", names), pictures_in(tmp_path, names)
    for one, other in zip(packed, plain, strict=True):
        assert one.check() is None
        assert np.array_equal(np.array(one.load()), np.array(other.load()))
    assert "all.tar holds no c.png" in pictures_in(tmp_path / "all.tar", ["c.png"])[0].check()


@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_arrays_are_read_by_row(tmp_path, ending):
    pixels = np.random.default_rng(2).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    path = tmp_path / f"x.{ending}"
    np.savez(path, shots=pixels) if ending == "npz" else np.save(path, pixels)
    picture, outside = pictures_in(path, ["2", 3], array="shots")
    assert np.array_equal(np.array(picture.load()), pixels[2])
    assert picture.check() is None
    assert "rows 0 to 2, no row 3" in outside.check()


def test_faults_name_the_file(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    text, empty, absent = pictures_in(tmp_path, ["text.jpg", "empty.jpg", "absent.jpg"])
    assert "text.jpg is no readable image" in text.check()
    assert "empty.jpg is no readable image" in empty.check()
    assert "absent.jpg does not exist" in absent.check()


def test_a_picture_cut_short_is_named_when_it_is_read(tmp_path):
    Image.effect_noise((64, 64), 80).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"Images: got .*cut\.jpg.*expected a whole image file"):
        pictures_in(tmp_path, ["cut.jpg"])[0].load()


def test_wrong_places_say_what_to_do(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "b.tar").write_bytes(b"no archive" * 100)
    (tmp_path / "c.npz").write_bytes(b"no arrays")
    for where, names, said in [
        (tmp_path / "nowhere", ["a"], "does not exist.*Correct the path"),
        (tmp_path / "a.npz", [0], r"shape \(2, 4, 4\).*expected uint8 \[pictures"),
        (tmp_path / "b.tar", ["a"], "no uncompressed tar.*Unpack it"),
        (tmp_path / "c.npz", [0], "cannot be read as pictures.*Correct the path"),
    ]:
        with pytest.raises(ValueError, match=f"Images: got .*{said}"):
            pictures_in(where, names)
    np.save(tmp_path / "d.npy", np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"'dog\.jpg'.*row number.*image_field"):
        pictures_in(tmp_path / "d.npy", ["dog.jpg"])

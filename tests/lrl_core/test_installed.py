"""Entry points read from files: the same as importlib.metadata finds."""

import sys
import zipfile
from importlib import metadata

import pytest

from lrl_core import installed


def by_metadata(prefix):
    """What importlib.metadata says, once per package."""
    found, seen = set(), set()
    for distribution in metadata.distributions():
        name = installed._normal(distribution.name or "")
        if name not in seen:
            seen.add(name)
            points = [point for point in distribution.entry_points if point.group.startswith(prefix)]
            found |= {(p.group, p.name, p.value, distribution.name, distribution.version) for p in points}
    return found


@pytest.mark.parametrize("prefix", ["lrl.", "console_scripts", "pytest11", "nowhere"])
def test_the_same_as_importlib_metadata(prefix):
    found = list(installed.entry_points(prefix))
    assert len(set(found)) == len(found)
    assert {tuple(point) for point in found} == by_metadata(prefix)


def test_version():
    assert installed.version("lrl") == metadata.version("lrl")
    assert installed.version("Jaxtyping") == metadata.version("jaxtyping")
    assert installed.version("nobody-has-this") == "unknown"


def put(folder, points="", name="My.Pack", version="1.0", info="my_pack-1.0.dist-info", file="METADATA"):
    (folder / info).mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: of the story, Name: none\n"
    (folder / info / file).write_text(text)
    (folder / info / "entry_points.txt").write_text(points)


POINTS = "# said by hand\n[lrl.rewards]\n A = a.b:A \nB=b:B [extra]\n\n[other]\nC = c:C\n"


def test_what_a_file_may_look_like(tmp_path, monkeypatch):
    put(tmp_path, POINTS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "nowhere")])
    assert [tuple(point) for point in installed.entry_points("lrl.")] == [
        ("lrl.rewards", "A", "a.b:A", "My.Pack", "1.0"),
        ("lrl.rewards", "B", "b:B [extra]", "My.Pack", "1.0"),
    ]
    assert {tuple(point) for point in installed.entry_points("lrl.")} == by_metadata("lrl.")


@pytest.mark.parametrize("info", ["my_pack.egg-info", "my_pack-1.0-py3.10.egg-info"])
def test_eggs(tmp_path, monkeypatch, info):
    put(tmp_path, POINTS, info=info, file="PKG-INFO")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert {point.package for point in installed.entry_points("lrl.")} == {"My.Pack"}
    assert installed.version("my-pack") == "1.0"


def test_a_copy_further_back_on_the_path_does_not_count(tmp_path, monkeypatch):
    put(tmp_path / "first", "", version="2.0", info="my_pack-2.0.dist-info")
    put(tmp_path / "second", POINTS)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    assert list(installed.entry_points("lrl.")) == []
    assert installed.version("my-pack") == "2.0"


def test_packages_in_an_archive_are_found_too(tmp_path, monkeypatch):
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("my_pack-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: my-pack\nVersion: 1.0\n\n")
        packed.writestr("my_pack-1.0.dist-info/entry_points.txt", "[lrl.rewards]\nA = a:A\n")
    monkeypatch.setattr(sys, "path", [str(archive)])
    assert [point.name for point in installed.entry_points("lrl.")] == ["A"]

import gzip

import pytest

from lrl_plugins.tasks.files import json_lines, place, read_text


def test_plain_and_gzipped_files_read_alike(tmp_path):
    (tmp_path / "a.txt").write_text("Café\n", encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("Café\n".encode()))
    assert read_text(str(tmp_path / "a.txt"), "X", "text") == read_text(str(tmp_path / "a.txt.gz"), "X", "text")


def test_faults_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"Me: got .*absent.*expected a poem.*Correct the path"):
        read_text(str(tmp_path / "absent"), "Me", "a poem")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n[2]\n')
    rows = json_lines(str(tmp_path / "a.jsonl"), "Me")
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(ValueError, match="Me: got a list in line 3"):
        next(rows)


def test_places_are_spread_evenly_and_stay():
    shares = [place(f"row-{i}") for i in range(2000)]
    assert all(0 <= share < 1 for share in shares)
    assert 0.08 < sum(share < 0.1 for share in shares) / 2000 < 0.12
    assert place("abc") == 0xA9993E364706 / 2**48  # the first digits of its SHA-1

"""The pictures show what they are given: their words in the SVG, their marks on the axes; the command line."""

import itertools
import re

import pytest

from lrl_plugins.tasks.simultaneous_translation.corpus_metric import corpus_scores
from lrl_plugins.tasks.simultaneous_translation.instances import Instance, write_instances
from lrl_plugins.tasks.simultaneous_translation.pictures import main, quality_against_latency, read_write_grid

matplotlib = pytest.importorskip("matplotlib", reason="draws the pictures")

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

CROWD = {
    "wait-k": [(1.0, 14.2, "k=1"), (2.1, 18.9, "k=2"), (3.0, 21.4, "k=3"), (4.9, 24.2, "k=5")],
    "learnt": [(2.2, 21.3, "d=0.5"), (2.25, 21.4, "d=0.6"), (2.3, 21.5, "d=0.7"), (2.35, 21.6, "d=0.8")],
}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look at their marks."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **named: (figures.append(self), save(self, *args, **named))
    )
    return figures


@pytest.fixture
def logs(tmp_path):
    """Three logs: wait-1, wait-3 and whole sentence first, of one sentence of five words."""
    reference = "the cat sat on mats"
    for name, delays in (("one", (1, 2, 3, 4, 5)), ("three", (3, 4, 5, 5, 5)), ("all", (5,) * 5)):
        write_instances(tmp_path / f"{name}.log", [Instance(0, "a b c d e", reference, reference, delays)])
    return tmp_path


def words_in(path):
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def test_every_series_and_label_is_in_the_curve(tmp_path, drawn):
    quality_against_latency(CROWD, tmp_path / "curve.svg")
    words = words_in(tmp_path / "curve.svg")
    assert {"wait-k", "learnt", "BLEU", "average lagging (source words)"} <= set(words)
    assert {label for own in CROWD.values() for *_, label in own} <= set(words)
    lines = drawn[0].axes[0].lines
    assert [line.get_xydata().tolist() for line in lines] == [[[x, y] for x, y, _ in own] for own in CROWD.values()]
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 2


def test_labels_cover_no_other_label_and_no_marker(tmp_path, drawn):
    quality_against_latency(CROWD, tmp_path / "curve.png")
    axes: Axes = drawn[0].axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 8
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    markers = [corner for line in axes.lines for corner in axes.transData.transform(line.get_xydata())]
    assert not any(box.contains(*corner) for box in boxes for corner in markers)


def test_points_are_joined_from_early_to_late(tmp_path, drawn):
    quality_against_latency({"a": [(3, 1, ""), (1, 2, ""), (2, 3, "")]}, tmp_path / "curve.pdf")
    assert drawn[0].axes[0].lines[0].get_xdata().tolist() == [1, 2, 3]
    assert (tmp_path / "curve.pdf").read_bytes().startswith(b"%PDF")


def test_the_grid_has_the_staircase_and_its_shade(tmp_path, drawn):
    picture = tmp_path / "new" / "grid.svg"
    read_write_grid(["Ich", "habe", "Äpfel", "da", "."], ["some", "apples", "."], [2, 5, 5], picture)
    assert {"Ich", "habe", "Äpfel", "da", "some", "apples"} <= set(words_in(picture))
    axes: Axes = drawn[0].axes[0]
    steps = [[0, 0], [2, 0], [2, 1], [5, 1], [5, 2], [5, 2], [5, 3]]
    assert axes.lines[0].get_xydata().tolist() == steps
    shaded = [shade.get_paths()[0].get_extents().bounds for shade in axes.collections[:3]]
    assert shaded == [(0, 0, 2, 1), (0, 1, 5, 1), (0, 2, 5, 1)]
    assert axes.get_ylim() == (3, 0)  # downwards


def test_a_drawing_is_always_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        quality_against_latency(CROWD, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_settings_of_others_stay(tmp_path):
    before = dict(matplotlib.rcParams)
    read_write_grid(["a"], ["b"], [1], tmp_path / "grid.png")
    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got no points"):
        quality_against_latency({"a": []}, tmp_path / "a.svg")
    with pytest.raises(ValueError, match="got 1 source words, 2 written words and 1 delays"):
        read_write_grid(["a"], ["b", "c"], [1], tmp_path / "a.svg")
    with pytest.raises(ValueError, match=r"got the picture .*a.jpeg, expected a name that ends in .svg, .png, .pdf"):
        read_write_grid(["a"], ["b"], [1], tmp_path / "a.jpeg")


def test_logs_become_points(logs, drawn, capsys):
    picture = logs / "curve.svg"
    named = [f"wait-k:k=1={logs}/one.log", f"wait-k:k=3={logs}/three.log", f"whole sentence={logs}/all.log"]
    main(["curve", str(picture), *named])
    assert [line.get_xdata().tolist() for line in drawn[0].axes[0].lines] == [[1, 3], [5]]
    assert drawn[0].axes[0].lines[0].get_ydata() == pytest.approx(100)
    assert {"wait-k", "k=1", "k=3", "whole sentence"} <= set(words_in(picture))
    assert capsys.readouterr().out == f"Wrote {picture}.\n"


def test_one_sentence_of_a_log_becomes_a_grid(logs, drawn):
    main(["path", str(logs / "three.log"), "0", str(logs / "grid.svg")])
    assert drawn[0].axes[0].lines[0].get_xydata().tolist()[:3] == [[0, 0], [3, 0], [3, 1]]


def test_the_command_line_says_what_is_wrong(logs, capsys):
    write_instances(logs / "silent.log", [Instance(0, "a", "", "b", ())])
    for arguments, message in (
        (["curve", str(logs / "a.svg"), "one.log"], "error: curve: got 'one.log', expected name=instances.log"),
        (["curve", str(logs / "a.svg"), "a=absent.log"], "error: .*got absent.log, which cannot be read"),
        (["curve", str(logs / "a.svg"), f"a={logs}/silent.log"], "error: .*no sentence has a translated word"),
        (["path", str(logs / "one.log"), "7", str(logs / "a.svg")], "error: path: got the index 7, .* 0 to 0"),
        (["path", str(logs / "silent.log"), "0", str(logs / "a.svg")], "error: .*0 written words"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(arguments)
    with pytest.raises(SystemExit) as done:
        main(["curve", "--help"])
    assert done.value.code == 0
    assert "series:label" in capsys.readouterr().out


def test_the_point_of_a_log_is_its_corpus(logs):
    row = Instance(0, "a b c d e", "the cat sat on mats", "the cat sat on mats", (3, 4, 5, 5, 5))
    assert corpus_scores([row])["AL"] == 3

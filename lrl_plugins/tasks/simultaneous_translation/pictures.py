"""Pictures of simultaneous translation: quality against latency, and the READ/WRITE path of one sentence."""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lrl_plugins.tasks.simultaneous_translation.instances import read_instances

if TYPE_CHECKING:  # an optional package: imported where something is drawn
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

# Wong 2011, "Points of view: Color blindness": told apart by everybody. The lightest, yellow, is left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
SUFFIXES = (".svg", ".png", ".pdf")
ACROSS = {1: "left", 0: "center", -1: "right"}
UPWARDS = {1: "bottom", 0: "center", -1: "top"}
PLACES = [
    (x, y, reach)
    for reach in (5, 10, 16, 24)  # points between a marker and its label
    for x, y in ((1, -1), (-1, 1), (1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
]


def quality_against_latency(points: Mapping[str, Sequence[tuple[float, float, str]]], path: str | Path) -> None:
    """Draw BLEU against average lagging, one line per series: the higher and the further left, the better.

    Args:
        points: By series: latency, quality and label ("" for none) of its points.
        path: The picture; its suffix says which kind, .svg, .png or .pdf.
    """
    if not any(points.values()):
        raise ValueError("quality_against_latency: got no points, expected at least one. Give the point of a log.")
    with _picture(path, 6.4, 4.4) as figure:
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        axes.set_xlabel("average lagging (source words)")
        axes.set_ylabel("BLEU")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.margins(0.12)
        for i, (series, own) in enumerate(points.items()):
            ordered = sorted(own)
            axes.plot(
                [latency for latency, _, _ in ordered],
                [quality for _, quality, _ in ordered],
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
                markersize=6,
                linewidth=1.6,
                label=series,
            )
        columns = min(len(points), 3)
        figure.legend(loc="outside upper center", ncols=columns, frameon=False)
        _label(figure, axes, chain.from_iterable(points.values()))


def read_write_grid(source: Sequence[str], words: Sequence[str], delays: Sequence[float], path: str | Path) -> None:
    """Draw one sentence's path: a row per word written, shaded as far as the source had been read by then.

    Args:
        source: Its words, along the top.
        words: The words of the translation, downwards.
        delays: Source words read when each of them was complete.
        path: The picture; its suffix says which kind, .svg, .png or .pdf.
    """
    if not source or not words or len(words) != len(delays):
        raise ValueError(
            f"read_write_grid: got {len(source)} source words, {len(words)} written words and {len(delays)} delays, "
            "expected at least one word on each side and one delay per written word. Choose another sentence."
        )
    columns, rows = len(source), len(words)
    with _picture(path, 0.42 * columns, 0.36 * rows) as figure:
        axes = figure.add_axes((0, 0, 1, 1))  # cells of one size; the picture grows by what the words need
        for row, delay in enumerate(delays):
            axes.fill_between([0, delay], row, row + 1, color="#cfe3f2", linewidth=0)
        axes.hlines(range(rows + 1), 0, columns, color="#bbbbbb", linewidth=0.6)
        axes.vlines(range(columns + 1), 0, rows, color="#bbbbbb", linewidth=0.6)
        steps = [(0.0, 0.0)] + [(delay, row + down) for row, delay in enumerate(delays) for down in (0, 1)]
        axes.plot(*zip(*steps, strict=True), color=COLOURS[1], linewidth=2.4, solid_joinstyle="miter", clip_on=False)
        axes.set(xlim=(0, columns), ylim=(rows, 0))
        axes.xaxis.tick_top()
        axes.set_xticks([column + 0.5 for column in range(columns)], source)
        for word in axes.get_xticklabels():
            word.set(rotation=45, rotation_mode="anchor", ha="left", va="center")
        axes.set_yticks([row + 0.5 for row in range(rows)], words)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("shaded: read when the word was written", fontsize=8.5, color="#555555")


@contextmanager
def _picture(path: str | Path, width: float, height: float) -> "Iterator[Figure]":
    """An empty figure, of so many inches; written to the path at the end."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"pictures: got the picture {path}, expected a name that ends in {', '.join(SUFFIXES)}. Rename it."
        )
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError(
            f"pictures: the package matplotlib cannot be imported ({error}), expected it for drawing. "
            "Install it with `pip install 'lrl[pictures]'`."
        ) from error

    # Words stay words in an SVG: small, searchable, in any script; and one drawing always gives one file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lrl", "font.size": 10}):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        figure.savefig(path, dpi=160, bbox_inches="tight", metadata=dates.get(path.suffix.lower()))


def _label(figure: "Figure", axes: "Axes", points: Iterable[tuple[float, float, str]]) -> None:
    """Write every label where it covers least: first no other label, then no marker, then no line."""
    import numpy as np

    figure.draw_without_rendering()  # places the axes, so that boxes are known
    taken = _drawn(axes)
    for latency, quality, label in points:
        if not label:
            continue
        text = axes.annotate(label, (latency, quality), (0, 0), textcoords="offset points", fontsize=8.5)
        text.set_in_layout(False)
        boxes = np.array([_box(text, place) for place in PLACES])
        best = int(np.argmin(_covered(boxes, taken, np.array(axes.bbox.extents))))
        _box(text, PLACES[best])
        taken = np.vstack([taken, [*boxes[best], 100.0]])


def _drawn(axes: "Axes") -> "np.ndarray":
    """What labels should not cover, [N, 5]: the corners of a box, and how bad it is; lines are many small boxes."""
    import numpy as np

    boxes = []
    for line in axes.lines:
        corners = axes.transData.transform(np.asarray(line.get_xydata()))
        boxes += [[*(corner - 5), *(corner + 5), 20.0] for corner in corners]
        for start, end in pairwise(corners):
            dots = np.linspace(start, end, int(np.linalg.norm(end - start) / 3) + 1)
            boxes += [[*(dot - 1), *(dot + 1), 1.0] for dot in dots]
    return np.array(boxes)


def _box(text: "Annotation", place: tuple[int, int, int]) -> Sequence[float]:
    """Move a label; the corners of where it then is."""
    x, y, reach = place
    text.set(position=(reach * x, reach * y), ha=ACROSS[x], va=UPWARDS[y])
    return text.get_window_extent().extents


def _covered(boxes: "np.ndarray", taken: "np.ndarray", inside: "np.ndarray") -> "np.ndarray":
    """How bad each of the boxes of `PLACES` is; leaving the axes is worst, far from the marker a little bad."""
    own, other = boxes[:, None], taken[None]
    apart = (own[..., :2] >= other[..., 2:4]) | (own[..., 2:] <= other[..., :2])
    covered = (~apart.any(-1) * other[..., 4]).sum(1)
    outside = ((boxes[:, :2] < inside[:2]) | (boxes[:, 2:] > inside[2:])).any(1)
    return covered + 1000 * outside + [reach / 10 for *_, reach in PLACES]


def curve(path: str, logs: Sequence[str]) -> None:
    """Draw logs as points of quality against latency.

    Args:
        path: The picture.
        logs: `name=instances.log` each, or `series:label=instances.log` for a point of a line.
    """
    from lrl_plugins.tasks.simultaneous_translation.corpus_metric import corpus_scores

    points: dict[str, list[tuple[float, float, str]]] = {}
    for given in logs:
        name, log = _named(given)
        scores = corpus_scores(read_instances(log))
        if math.isnan(scores["AL"]):
            raise ValueError(
                f"curve: got {log}, where no sentence has a translated word, expected one at least. Leave it out."
            )
        series, _, label = name.partition(":")
        points.setdefault(series, []).append((scores["AL"], scores["BLEU"], label))
    quality_against_latency(points, path)


def _named(given: str) -> tuple[str, str]:
    """The name and the log in name=log; the name, or the path, may have a sign of equality of its own."""
    splits = [(given[:i], given[i + 1 :]) for i, sign in enumerate(given) if sign == "="]
    splits = [(name, log) for name, log in splits if name and log]
    if not splits:
        raise ValueError(
            f"curve: got {given!r}, expected name=instances.log or series:label=instances.log. Name every log."
        )
    return next((split for split in splits if Path(split[1]).is_file()), splits[-1])


def sentence_path(log: str, index: int, path: str) -> None:
    """Draw the path of one sentence of a log.

    Args:
        log: The instances.log.
        index: Of the sentence, as its line in the log has it.
        path: The picture.
    """
    rows = {row.index: row for row in read_instances(log)}
    if index not in rows:
        raise ValueError(
            f"path: got the index {index}, expected one of the {len(rows)} in {log}, {min(rows)} to {max(rows)}. "
            "Choose another sentence."
        )
    row = rows[index]
    read_write_grid(row.source.split(), row.prediction.split(), row.delays, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line.

    Args:
        arguments: Without the program's name; None = those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lrl_plugins.tasks.simultaneous_translation.pictures",
        description="Draw what a test of simultaneous translation logged in instances.log.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "curve",
        help="quality (BLEU) against latency (AL), a point per log",
        description="Quality (BLEU) against latency (average lagging), a point per log. For example: "
        "curve out.svg wait-k:k=1=k1/instances.log wait-k:k=3=k3/instances.log learnt=rl/instances.log",
    )
    one.add_argument("picture", help="what to write: .svg, .png or .pdf")
    one.add_argument("logs", nargs="+", metavar="name=instances.log", help="series:label=... joins a line")
    other = commands.add_parser("path", help="the READs and WRITEs of one sentence, on the grid of source and target")
    other.add_argument("log", help="an instances.log")
    other.add_argument("index", type=int, help="which sentence, from 0")
    other.add_argument("picture", help="what to write: .svg, .png or .pdf")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "curve":
            curve(chosen.picture, chosen.logs)
        else:
            sentence_path(chosen.log, chosen.index, chosen.picture)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(f"Wrote {chosen.picture}.")


if __name__ == "__main__":
    main()

import gzip
import json
import subprocess
import sys

import pytest

from lrl_core.cli import main
from lrl_core.commands import transcripts

ASKED = [{"who": "policy", "text": "is it [red] ?"}, {"who": "world", "text": "no"}]
ROWS = [
    {"id": "g1", "text": "-", "references": [], "turns": [*ASKED, {"who": "policy", "text": "a cat ?"}], "paid": 1.0},
    {"id": "g2", "text": "-", "references": [], "turns": ASKED, "paid": 0.0},
    {"id": "g3", "text": "-", "references": ["the cat"], "turns": ASKED, "paid": 0.5},
]
MONOLOGUE = {"id": 7, "text": "a man\nrides", "references": ["a person on a horse", "a rider"]}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes rows to a file of this name."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LRL_TRACEBACK", raising=False)

    def write(rows, name="predictions.jsonl"):
        path = tmp_path / name
        text = "\n".join(map(json.dumps, rows)) + "\n\n"
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.mark.parametrize("name", ["predictions.jsonl", "packed.jsonl.gz"])
def test_conversations_are_printed_in_full(written, capsys, name):
    assert main(["transcripts", str(written(ROWS, name))]) == 0
    assert capsys.readouterr().out == (
        "g1  paid 1\n  is it [red] ?\n        no\n  a cat ?\n\n"
        "g2  paid 0\n  is it [red] ?\n        no\n\n"
        "g3  paid 0.5\n  is it [red] ?\n        no\n  reference: the cat\n\n"
        "3 of 3 shown, mean paid 0.500\n"
    )


@pytest.mark.parametrize(
    ("options", "ids", "last"),
    [
        (["--first", "2"], ["g1", "g2"], "2 of 3 shown, mean paid 0.500 (all: 0.500)"),
        (["--only", "failed"], ["g2"], "1 of 3 shown, mean paid 0.000 (all: 0.500)"),
        (["--only", "paid"], ["g1", "g3"], "2 of 3 shown, mean paid 0.750 (all: 0.500)"),
        (["--only", "paid", "--first", "1"], ["g1"], "1 of 3 shown, mean paid 1.000 (all: 0.500)"),
        (["--id", "g3"], ["g3"], "1 of 3 shown, mean paid 0.500 (all: 0.500)"),
    ],
)
def test_some_of_them(written, capsys, options, ids, last):
    assert main(["transcripts", str(written(ROWS)), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("g")] == ids
    assert lines[-1] == last


def test_monologues_are_printed_as_text(written, capsys):
    assert main(["transcripts", str(written([MONOLOGUE]))]) == 0
    assert capsys.readouterr().out == (
        "7\n  a man\n  rides\n  reference: a person on a horse\n  reference: a rider\n\n1 of 1 shown\n"
    )


def test_training_episodes_have_a_step_and_their_prompts_id(written, capsys):
    rows = [{"step": 3, "prompt": "toy-1", "text": "ab", "turns": ASKED, "paid": -1.0, "reward": {"total": 0.0}}]
    assert main(["transcripts", str(written(rows, "rollouts.jsonl")), "--only", "failed"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "toy-1  step 3  paid -1"


def test_what_would_move_the_cursor_is_not_printed(written, capsys):
    assert main(["transcripts", str(written([{"id": "x", "text": "a\x1b[2Jb\rc"}]))]) == 0
    assert "  a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c\n" in capsys.readouterr().out


def test_long_turns_are_wrapped_under_themselves(written, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "36")
    turns = [{"who": "policy", "text": "aaaa " * 10}, {"who": "world", "text": "bbbb " * 8}]
    assert main(["transcripts", str(written([{"id": "x", "turns": turns, "paid": 0}]))]) == 0
    assert capsys.readouterr().out.splitlines()[1:5] == [
        "  " + " ".join(["aaaa"] * 7), "  " + " ".join(["aaaa"] * 3),
        " " * 8 + " ".join(["bbbb"] * 5), " " * 8 + " ".join(["bbbb"] * 3),
    ]  # fmt: skip


def shown(path, monkeypatch, *options):
    """What somebody at a terminal sees."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["transcripts", str(path), *options]) == 0


def test_each_side_has_its_colour(written, capsys, monkeypatch):
    shown(written(ROWS[:1]), monkeypatch)
    text = capsys.readouterr().out
    assert "\x1b[36m  is it [red] ?\x1b[0m\n" in text
    assert "\x1b[33m        no\x1b[0m\n" in text
    shown(written(ROWS[:1]), monkeypatch, "--plain")
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("{", "got no JSON"),
        ("[1]", "got a list"),
        ('{"candidate": "x"}', "got the columns ['candidate']"),
        ('{"text": 3}', "got text 3"),
        ('{"turns": "x"}', "got turns 'x'"),
        ('{"turns": [{"who": "nobody", "text": "x"}]}', "got turns [{'who': 'nobody'"),
        ('{"turns": [], "paid": "much"}', "paid 'much'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, capsys, line, got):
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"text": "good"}}\n{line}\n')
    assert main(["transcripts", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lrl: error: {path}, line 2: ")
    assert got in error
    assert 'expected a JSON object with "turns"' in error


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], [], "has no rows; expected at least one"),
        (ROWS, ["--id", "g4"], "has no id 'g4'; expected one of its 3, such as g1, g2, g3. Leave --id out"),
        (ROWS[1:2], ["--only", "paid"], "of 1 rows none was paid something, so that --only paid has nothing"),
        (ROWS[:1], ["--only", "failed"], "of 1 rows every one was paid something, so that --only failed"),
        ([MONOLOGUE], ["--only", "paid"], "no row with a number in `paid`; --only expects conversations"),
        (ROWS, ["--first", "0"], "--first is 0; expected at least 1"),
    ],
)
def test_nothing_to_show_is_an_error(written, capsys, rows, options, message):
    assert main(["transcripts", str(written(rows)), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_missing_file_and_a_folder(written, capsys):
    path = written(ROWS)
    assert main(["transcripts", str(path.with_name("none.jsonl"))]) == 2
    assert "none.jsonl is not readable: [Errno 2]" in capsys.readouterr().err
    assert main(["transcripts", str(path.parent)]) == 2
    assert "is a folder; expected a file of JSON lines. It holds predictions.jsonl." in capsys.readouterr().err


def test_nothing_heavy_is_imported(written):
    heavy = ("torch", "lightning", "jsonargparse", "transformers", "numpy", "lrl_plugins")
    code = (
        "import sys; from lrl_core.cli import main\n"
        f"main(['transcripts', {str(written(ROWS))!r}])\n"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "3 of 3 shown" in done.stdout


def test_means_are_over_what_was_paid():
    one = transcripts.Transcript("x", None, (), None, ())
    assert transcripts.summary([one], [one, one]) == "1 of 2 shown"
    assert transcripts.summary([one, one._replace(paid=2.0)], [one] * 2) == "2 of 2 shown, mean paid 2.000"

import json
import socket
import subprocess
import sys

import pytest

pytest.importorskip("sqlalchemy", reason="labels need the extra lrl[labels]")
pytest.importorskip("starlette", reason="labels need the extra lrl[labels]")
pytest.importorskip("uvicorn", reason="labels need the extra lrl[labels]")

from lrl_core.cli import main
from lrl_core.labelling import server
from lrl_core.preferences.store import PreferenceStore

ROW = {"prompt": "p", "candidates": ["a", "b"], "best": 1, "who": "ann"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run."""
    monkeypatch.delenv("LRL_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def write(*rows):
    with open("in.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_labels_go_in_and_out(run, capsys):
    write(ROW)
    assert main(["label", "--run", "run", "--import", "in.jsonl"]) == 0
    assert capsys.readouterr().out == "Judgments added from in.jsonl: 1\n"
    assert main(["label", "--run", "run", "--import", "in.jsonl"]) == 0
    assert capsys.readouterr().out == "Judgments added from in.jsonl: 0\n"
    assert (run / "labels.db").is_file()
    assert main(["label", "--store", f"sqlite:///{run / 'labels.db'}", "--export", "out.jsonl"]) == 0
    assert capsys.readouterr().out == "Judgments written to out.jsonl: 1\n"
    with open("out.jsonl", encoding="utf-8") as file:
        (row,) = map(json.loads, file)
    assert (row["ranks"], row["who"], row["skipped"]) == ([1, 0], "ann", False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--run", "nowhere"], "--run is nowhere, which is no folder"),
        (["--store", "nothing://x"], "cannot be used"),
        (["--run", "run", "--import", "in.jsonl"], "in.jsonl, line 2: got candidates without ranks"),
        (["--run", "run", "--import", "none.jsonl"], "not readable"),
        (["--run", "run", "--export", "no/out.jsonl"], "not writable"),
        (["--run", "run", "--port", "70000"], "--port is 70000; expected 0 to 65535"),
        (["--run", "run", "--who", "  "], "--who is '  '"),
        (["--run", "run", "--host", "192.0.2.1"], "--host 192.0.2.1 cannot be served"),
    ],
)
def test_errors(run, capsys, arguments, said):
    write(ROW, {"prompt": "p", "candidates": ["a", "b"]})
    assert main(["label", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lrl: error: ")
    assert said in error
    assert "; expected " in error


def test_a_port_that_is_taken_is_an_error_only_if_it_was_asked_for(run, capsys, monkeypatch):
    monkeypatch.setattr(server, "serve", lambda app, listener: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("lrl_core.commands.label._PORT", port)
        assert main(["label", "--run", "run", "--port", str(port)]) == 2
        assert f"--port {port} cannot be served" in capsys.readouterr().err
        assert main(["label", "--run", "run"]) == 0
        assert f":{port}/" not in capsys.readouterr().out
    assert main(["label", "--run", "run"]) == 0
    assert f"Label at http://127.0.0.1:{port}/\n" in capsys.readouterr().out


def test_what_is_printed(run, capsys, monkeypatch):
    monkeypatch.setattr(server, "serve", lambda app, listener: None)
    store = PreferenceStore(str(run / "labels.db"))
    for i in range(3):
        store.judge(store.ask(f"p{i}", ["a", "b"]), [0, 1], who=("ann", "bob")[i % 2])
    main(["label", "--run", "run", "--who", "ann", "--port", "0"])
    assert "Questions: 3, of which 1 are open. Ctrl-C ends." in capsys.readouterr().out
    main(["label", "--run", "run", "--token", "sesame"])  # also on this machine, where it is asked for
    assert "/?token=sesame\n" in capsys.readouterr().out
    main(["label", "--run", "run", "--host", "0.0.0.0"])
    first, second = (capsys.readouterr().out, main(["label", "--run", "run", "--host", "0.0.0.0"]))
    assert second == 0
    assert first.partition("?token=")[2].split()[0] != capsys.readouterr().out.partition("?token=")[2].split()[0]


def test_help_needs_nothing_heavy_and_a_missing_extra_is_named(run):
    code = "import sys\nfor name in sys.argv[1].split(): sys.modules[name] = None\n"
    code += "from lrl_core.cli import main; code = main(['label', *sys.argv[2:]])\n"
    code += "sys.exit(code)"

    def label(missing, *arguments):
        return subprocess.run([sys.executable, "-c", code, missing, *arguments], capture_output=True, text=True)

    helped = label("sqlalchemy starlette uvicorn torch numpy", "--help")
    assert helped.returncode == 0
    assert "lrl label --run runs/" in helped.stdout
    write(ROW)
    for missing in ("sqlalchemy", "starlette", "uvicorn"):
        refused = label(missing, "--run", "run")
        assert refused.returncode == 2
        assert "pip install 'lrl[labels]'" in refused.stderr
        assert "Traceback" not in refused.stderr
    moved = label("torch starlette uvicorn", "--run", "run", "--import", "in.jsonl")
    assert moved.stdout == "Judgments added from in.jsonl: 1\n"

import json
import subprocess
import sys
import time

import pytest

from lrl_core import cli
from lrl_core.commands import CommandError
from lrl_core.registry import PluginError

HEAVY = ("torch", "lightning", "jsonargparse", "transformers", "numpy", "lrl_plugins")


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], ["plugins"], ["plugins", "--json"], ["recipes"]])
def test_answers_without_heavy_imports(arguments):
    code = (
        "import sys; from lrl_core.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], code, file=sys.stderr)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[] 0"
    assert done.stdout.strip()
    assert time.perf_counter() - start < 3  # well under 1 s on an idle machine; torch alone takes longer than this


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in cli._COMMANDS:
        assert f"\n  {command} " in text


def test_unknown_command(capsys):
    assert cli.main(["tarin"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lrl: error: There is no command 'tarin'.")
    assert "Commands: fit, validate, test, predict, plugins, recipes, score, transcripts, label, new." in error
    cli.main(["plugin"])
    assert "Did you mean 'plugins'?" in capsys.readouterr().err


@pytest.mark.parametrize("error", [CommandError("say this"), PluginError("say this")])
def test_errors_are_one_block_or_a_traceback_if_asked(monkeypatch, capsys, error):
    def fail(arguments):
        raise error

    monkeypatch.setitem(cli._COMMANDS, "plugins", fail)
    monkeypatch.delenv("LRL_TRACEBACK", raising=False)
    assert cli.main(["plugins"]) == 2
    assert capsys.readouterr().err == "lrl: error: say this\n"
    monkeypatch.setenv("LRL_TRACEBACK", "1")
    with pytest.raises(type(error), match="say this"):
        cli.main(["plugins"])


def test_defects_keep_their_traceback(monkeypatch):
    def fail(arguments):
        raise KeyError("a defect")

    monkeypatch.setitem(cli._COMMANDS, "plugins", fail)
    with pytest.raises(KeyError):
        cli.main(["plugins"])


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "lrl_core.cli", "plugins", "--json"], capture_output=True, text=True)
    assert done.returncode == 0
    assert {"Sample", "CIDErD"} <= {row["name"] for row in json.loads(done.stdout)}

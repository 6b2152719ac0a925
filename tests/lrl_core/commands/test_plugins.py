import json

import pytest

from lrl_core.cli import main


def rows(capsys, *arguments):
    code = main(["plugins", "--json", *arguments])
    return code, {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_json_says_what_is_installed_and_what_is_broken(toy_world, capsys):
    code, listed = rows(capsys)
    assert code == 0
    assert listed["CountA"] == {
        "kind": "reward",
        "name": "CountA",
        "package": "toy-world",
        "version": "1.2",
        "value": "toy_world.parts:CountA",
        "description": "Pays for every letter a.",
        "problem": None,
    }
    assert "a_package_that_nobody_has" in listed["Needy"]["problem"]
    assert "No module named 'toy_world.nowhere'" in listed["Absent"]["problem"]
    assert listed["Late"]["problem"] is None  # the source does not show it


def test_check_imports_everything(toy_world, capsys):
    code, listed = rows(capsys, "--check")
    assert code == 1
    assert listed["Late"]["problem"] == "RuntimeError: no licence file"
    assert "no subclass of Reward" in listed["NoReward"]["problem"]
    assert listed["CountA"]["problem"] is None


def test_table(toy_world, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plugins"]) == 0
    table = capsys.readouterr().out
    line = next(line for line in table.splitlines() if " CountA " in line)
    assert all(word in line for word in ("reward", "toy-world", "1.2", "Pays for every letter a."))
    assert "BROKEN: ModuleNotFoundError: No module named 'a_package_that_nobody_has'" in table


def test_markup_in_a_docstring_is_shown_as_it_is(capsys, monkeypatch):
    from lrl_core.commands import plugins

    monkeypatch.setenv("COLUMNS", "200")
    plugins._show([plugins.Row("reward", "X", "p", "1", "m:X", "Scores in [B, T] [red]", None)])
    assert "Scores in [B, T] [red]" in capsys.readouterr().out


def test_unknown_option_is_refused():
    with pytest.raises(SystemExit):
        main(["plugins", "--jsno"])

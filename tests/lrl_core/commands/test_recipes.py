import json
from pathlib import Path

import pytest

from lrl_core.cli import main
from lrl_core.commands import CommandError, recipes


def test_heads_are_read(shipped_recipes, capsys):
    assert main(["recipes", "--json"]) == 0
    plain, quickstart = json.loads(capsys.readouterr().out)
    assert quickstart == {
        "name": "captioning/quickstart",
        "summary": "Teaches a small captioner in two minutes, on drawn scenes.",
        "paper": "Rennie et al. 2017, self-critical training",
        "result": "CIDErD 1.5",
        "command": "lrl fit --config captioning/quickstart",
        "time": "2 min",
    }
    assert plain["name"] == "captioning/plain"
    assert plain["paper"] == ""


def test_table(shipped_recipes, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recipes"]) == 0
    assert "captioning/quickstart" in capsys.readouterr().out


@pytest.mark.parametrize("destination", [[], ["mine.yaml"], ["new/folder/"], ["new/deep/mine.yaml"]])
def test_copy(shipped_recipes, tmp_path, monkeypatch, capsys, destination):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "--copy", "captioning/quickstart", *destination]) == 0
    target = Path(capsys.readouterr().out.splitlines()[0])
    assert target.read_bytes() == (shipped_recipes / "captioning" / "quickstart.yaml").read_bytes()
    assert target.name == ("mine.yaml" if destination and "mine" in destination[0] else "quickstart.yaml")


def test_copy_never_overwrites(shipped_recipes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text("mine")
    assert main(["recipes", "--copy", "captioning/quickstart"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert (tmp_path / "quickstart.yaml").read_text() == "mine"


def test_copy_of_an_unknown_recipe(shipped_recipes, capsys):
    assert main(["recipes", "--copy", "captioning/quikstart"]) == 2
    assert "Did you mean 'captioning/quickstart'?" in capsys.readouterr().err


def test_resolve(shipped_recipes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = shipped_recipes / "captioning" / "plain.yaml"
    assert recipes.resolve("captioning/plain") == shipped
    assert recipes.resolve("captioning/plain.yaml") == shipped
    (tmp_path / "captioning").mkdir()
    (tmp_path / "captioning" / "plain.yaml").write_text("mine: 1")
    assert recipes.resolve("captioning/plain.yaml") == Path("captioning/plain.yaml")  # the user's own file comes first
    with pytest.raises(CommandError, match=r"Did you mean 'captioning/plain'\? Shipped recipes: captioning/plain, "):
        recipes.resolve("captioning/plian")


def test_the_installed_recipes_have_a_head():
    for name, path in recipes.shipped().items():
        assert recipes.read(name, path).summary, f"{path} begins with a comment line that says what it does"

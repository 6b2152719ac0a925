import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lrl_core import registry
from lrl_core.commands import recipes

TOY_WORLD = Path(__file__).parent / "toy_world"
RECIPE = {
    "model": {
        "policy": "LetterPolicy",
        "decoder": {"class_path": "Sample", "init_args": {"max_length": 3}},
        "reward": {"class_path": "CountA", "init_args": {"price": 2.0}},
        "baseline": "BatchMean",
        "objective": "Reinforce",
        "replay": "Fresh",
        "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.1}},
    },
    "data": {
        "class_path": "LetterTask",
        "init_args": {"source": {"class_path": "Source", "init_args": {"rows": 4}}},
    },
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}


@pytest.fixture
def toy_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A stranger's package is installed, and the test runs in an empty folder."""
    monkeypatch.syspath_prepend(str(TOY_WORLD))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOY_WORLD), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("LRL_TRACEBACK", raising=False)
    monkeypatch.setenv("LRL_RUN_FOLDER", "restored after the test")
    monkeypatch.chdir(tmp_path)
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    registry.forget()
    for module in ("toy_world.late", "toy_world.needy"):
        sys.modules.pop(module, None)


@pytest.fixture
def write_recipe(toy_world: Path) -> Callable[..., Path]:
    """Writes the toy recipe, changed by a function, and returns its path."""

    def write(change: Callable[[dict], object] | None = None, name: str = "toy.yaml") -> Path:
        recipe = yaml.safe_load(yaml.safe_dump(RECIPE))
        if change is not None:
            change(recipe)
        path = toy_world / name
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return path

    return write


@pytest.fixture
def shipped_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recipes in place of those that are really shipped."""
    folder = tmp_path_factory.mktemp("installed") / "recipes"
    (folder / "captioning").mkdir(parents=True)
    (folder / "captioning" / "quickstart.yaml").write_text(
        "# Teaches a small captioner in two minutes,\n# on drawn scenes.\n# paper: Rennie et al. 2017,\n"
        "#   self-critical training\n# result: CIDErD 1.5\n# command: lrl fit --config captioning/quickstart\n"
        f"# time: 2 min\n\n# not part of the head\n{yaml.safe_dump(RECIPE)}",
        encoding="utf-8",
    )
    (folder / "captioning" / "plain.yaml").write_text(f"# Plain.\n{yaml.safe_dump(RECIPE)}", encoding="utf-8")
    monkeypatch.setattr(recipes, "folder", lambda: folder)
    return folder

from pathlib import Path

import pytest

from lrl_core import run_folder


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("LRL_RUN_FOLDER", "restored after the test")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("installed/recipes/captioning/quickstart.yaml", "captioning-quickstart"),
        ("mine/quickstart.yaml", "quickstart"),
        ("runs/captioning-mle/version_3/config.yaml", "captioning-mle"),
        ("mine/config.yaml", "config"),
    ],
)
def test_run_name(config, name):
    assert run_folder.run_name(Path(config), Path("installed/recipes")) == name


def test_run_name_without_a_recipe():
    assert run_folder.run_name(None, None) == "lrl"


def test_claim_counts_on_and_never_reuses(tmp_path):
    (tmp_path / "x" / "version_7").mkdir(parents=True)
    (tmp_path / "x" / "version_old").mkdir()
    assert [run_folder.claim(tmp_path, "x").name for _ in range(2)] == ["version_8", "version_9"]
    assert run_folder.claim(tmp_path, "y") == tmp_path / "y" / "version_0"


def test_claim_gives_way_to_a_run_that_was_quicker(tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def slow(self, *args, **kwargs):
        if self.name == "version_0" and not self.exists():
            mkdir(self)  # another process, between looking and making
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", slow)
    assert run_folder.claim(tmp_path, "x").name == "version_1"


def test_launched_processes_share_the_folder_of_their_launcher(tmp_path, monkeypatch):
    first = run_folder.claim(tmp_path, "x")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run_folder.claim(tmp_path, "x") == first
    assert run_folder.take(first) == first
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run_folder.claim(tmp_path, "x") != first


def test_take_refuses_what_is_not_empty(tmp_path):
    folder = run_folder.take(tmp_path / "new" / "deep")
    assert folder.is_dir()
    assert run_folder.take(folder) == folder
    (folder / "metrics.csv").write_text("step\n")
    with pytest.raises(FileExistsError, match="not empty"):
        run_folder.take(folder)

import json
import os
import subprocess
import sys

import pytest

from lrl_core.cli import main
from lrl_core.commands.new import create, snake
from lrl_core.registry import KINDS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Brevity", "brevity"),
        ("ShortAnswers", "short_answers"),
        ("CIDErD", "cid_er_d"),
        ("BLEU", "bleu"),
        ("GPT2LM", "gpt2_lm"),
    ],
)
def test_snake(name, expected):
    assert snake(name) == expected


def test_every_kind_passes_its_own_tests(tmp_path):
    """The generated classes keep the contract, as the kit in the generated tests says."""
    folders = [create(kind, f"Example{kind.capitalize()}", tmp_path) for kind in KINDS.values()]
    path = os.pathsep.join(str(folder / "src") for folder in folders)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert all((folder / "tests").is_dir() and (folder / "README.md").is_file() for folder in folders)


def test_no_placeholder_is_left(tmp_path):
    for kind in KINDS.values():
        for path in create(kind, f"Example{kind.capitalize()}", tmp_path).rglob("*.*"):
            if path.is_file():
                assert "$" not in path.read_text(encoding="utf-8"), path


def test_a_package_installs_and_is_listed(tmp_path):
    assert main(["new", "reward", "ShortAnswers", "--dir", str(tmp_path)]) == 0
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(tmp_path / "lrl-short-answers")], check=True)
    code = "from lrl_core.cli import main; main(['plugins', '--json'])"
    env = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    row = next(row for row in json.loads(done.stdout) if row["name"] == "ShortAnswers")
    assert (row["kind"], row["package"], row["problem"]) == ("reward", "lrl-short-answers", None)
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(tmp_path / "lrl-short-answers" / "tests"),
    ]
    assert subprocess.run(tests, env=env, capture_output=True, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rewrad", "Brevity"], "Did you mean 'reward'?"),
        (["reward", "brevity"], "expected a class name in CamelCase"),
        (["reward", "Short-Answers"], "expected a class name in CamelCase"),
        (["reward", "True"], "expected a class name in CamelCase"),
        (["reward", "CIDErD"], "exists already, in package lrl"),
    ],
)
def test_refusals(tmp_path, capsys, arguments, said):
    assert main(["new", *arguments, "--dir", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_never_overwrites(tmp_path, capsys):
    (tmp_path / "lrl-brevity").mkdir()
    assert main(["new", "reward", "Brevity", "--dir", str(tmp_path)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert not list((tmp_path / "lrl-brevity").iterdir())


def test_next_steps_are_said(tmp_path, capsys):
    main(["new", "task", "MyTask", "--dir", str(tmp_path)])
    said = capsys.readouterr().out
    assert f"pip install -e {tmp_path / 'lrl-my-task'}" in said
    assert "data:\n  class_path: MyTask" in said

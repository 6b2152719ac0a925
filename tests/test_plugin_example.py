"""A reward from a package that a stranger wrote: pip install, a name and its arguments in a YAML file, nothing else."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLE = Path(__file__).parent / "plugin_example"
BROKEN = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "lrl-example-broken"
version = "1.0"
[project.entry-points."lrl.rewards"]
Broken = "lrl_example_broken:Broken"
[tool.setuptools]
py-modules = ["lrl_example_broken"]
""",
    "lrl_example_broken.py": '''
import a_package_that_nobody_has

class Broken:
    """Would pay a lot."""
''',
}
RECIPE = {
    "model": {
        "policy": {"class_path": "Recurrent"},
        "decoder": {"class_path": "Sample", "init_args": {"max_length": 5}},
        "reward": {"class_path": "Brevity", "init_args": {"words": 7, "price": 0.25}},
        "baseline": "BatchMean",
        "objective": "Reinforce",
        "replay": "Fresh",
    },
    "data": "Captioning",
}

ONE_STEP = [
    "--model.warm_up=null",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.accelerator=cpu",
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Both packages, installed by pip as from an index, but without one; the folder to put on the path."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("broken")
    for name, text in BROKEN.items():
        (source / name).write_text(text)
    wheels = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip"]
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    copied = tmp_path_factory.mktemp("example")  # a build leaves files in the source folder
    for path in EXAMPLE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            (copied / path.relative_to(EXAMPLE)).parent.mkdir(parents=True, exist_ok=True)
            (copied / path.relative_to(EXAMPLE)).write_bytes(path.read_bytes())
    subprocess.run([*pip, "wheel", *offline, "--wheel-dir", wheels, copied, source], check=True)
    subprocess.run([*pip, "install", *offline, "--target", target, *wheels.glob("*.whl")], check=True)
    return target


@pytest.fixture
def lrl(installed, tmp_path):
    """Runs commands one after another in one fresh process that sees the packages; (exit code, stdout, stderr) of each.

    Importing torch takes longer than any of these commands, so they share a process where they can.
    """
    script = """
import contextlib, io, json, sys
from lrl_core.cli import main
results = []
for arguments in json.loads(sys.argv.pop()):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "LRL_TRACEBACK")}
    env |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(*commands):
        listed = json.dumps([[str(word) for word in command] for command in commands])
        done = subprocess.run(
            [sys.executable, "-c", script, listed], capture_output=True, text=True, env=env, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def write(folder, name, reward):
    path = folder / name
    path.write_text(yaml.safe_dump(RECIPE | {"model": RECIPE["model"] | {"reward": reward}}))
    return path


def test_both_are_listed_and_the_broken_one_says_why(lrl):
    ((code, out, _),) = lrl(["plugins", "--json"])
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["Brevity"] == {
        "kind": "reward",
        "name": "Brevity",
        "package": "lrl-example-brevity",
        "version": "0.3",
        "value": "lrl_example_brevity.brevity:Brevity",
        "description": "Pays for answers of about the wanted number of words.",
        "problem": None,
    }
    assert rows["Broken"]["problem"] == "ModuleNotFoundError: No module named 'a_package_that_nobody_has'; install it"


def test_a_recipe_uses_it_by_name_like_any_other_and_a_broken_one_stops_only_who_names_it(lrl, tmp_path):
    broken, named, helped, misspelt = lrl(
        ["fit", "--config", write(tmp_path, "broken.yaml", "Broken"), "--print_config"],
        ["fit", "--config", write(tmp_path, "named.yaml", RECIPE["model"]["reward"]), "--print_config"],
        ["fit", "--model.reward.help", "Brevity"],
        ["fit", "--config", write(tmp_path, "misspelt.yaml", "Brevety"), "--print_config"],
    )
    assert broken[0] == 2
    assert "The reward 'Broken' of package lrl-example-broken 1.0 cannot be loaded" in broken[2]
    assert "Traceback" not in broken[2]
    assert named[0] == 0, named[2]
    assert yaml.safe_load(named[1])["model"]["reward"] == {
        "class_path": "lrl_example_brevity.brevity.Brevity",
        "init_args": {"words": 7, "price": 0.25},
    }
    assert "The wanted number of words." in helped[1]
    assert misspelt[0] == 2
    assert "There is no reward 'Brevety'. Did you mean 'Brevity'?" in misspelt[2]


def test_it_scores_a_file_and_trains_in_a_shipped_recipe(lrl, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"candidate": "one two"}\n{"candidate": "one two three four"}\n')
    options = ["--reward", "Brevity", "--reward.words", "2", "--reward.price", "0.25"]
    scored, trained = lrl(
        ["score", *options, "--input", "rows.jsonl"],
        [
            "fit",
            "--config",
            "captioning/quickstart",
            "--model.reward",
            "Brevity",
            "--model.reward.words",
            "4",
            *ONE_STEP,
        ],
    )
    assert json.loads(scored[1]) == {"mean": 0.75, "n": 2, "failed": 0}, scored[2]
    assert trained[0] == 0, trained[2]
    run = tmp_path / "runs" / "captioning-quickstart" / "version_0"
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["reward"]["init_args"]["words"] == 4
    with (run / "metrics.csv").open() as file:
        (reward,) = [float(row["reward/mean"]) for row in csv.DictReader(file) if row["reward/mean"]]
    assert -1 <= reward <= 1  # at most 1; untrained captions of at most 20 words are at most 16 off

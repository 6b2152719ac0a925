import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from lrl_core import precision
from lrl_core.cli import main
from lrl_core.commands import recipes


def fit(recipe, *options):
    return main(["fit", "--config", str(recipe), *options])


def one(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


# The run folder


def test_fit_leaves_config_metrics_and_checkpoint_in_a_folder_of_its_own(write_recipe, toy_world):
    recipe = write_recipe()
    assert fit(recipe) == 0
    assert fit(recipe) == 0
    assert {p.name for p in (toy_world / "runs" / "toy").iterdir()} == {"version_0", "version_1"}
    run = toy_world / "runs" / "toy" / "version_0"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["reward"] == {"class_path": "toy_world.parts.CountA", "init_args": {"price": 2.0}}
    assert saved["model"]["decoder"]["init_args"]["temperature"] == 1.0  # defaults are written out
    assert "task" not in saved["model"]
    with (run / "metrics.csv").open() as file:
        rewards = [row["reward/mean"] for row in csv.DictReader(file) if row["reward/mean"]]
    assert len(rewards) == 2
    torch.load(one(run, "checkpoints/*.ckpt"), weights_only=True)  # only tensors and plain values
    assert not (toy_world / "lightning_logs").exists()


def test_a_saved_config_runs_again_under_the_same_name(write_recipe, toy_world):
    fit(write_recipe())
    runs = toy_world / "runs" / "toy"
    assert fit(runs / "version_0" / "config.yaml") == 0
    first, second = ((runs / f"version_{k}" / "metrics.csv").read_text() for k in (0, 1))
    timed = ("time/", "tokens_per_second", "memory/")
    columns = [
        [{k: v for k, v in row.items() if not k.startswith(timed)} for row in csv.DictReader(t.splitlines())]
        for t in (first, second)
    ]
    assert columns[0] == columns[1]


def test_run_dir(write_recipe, toy_world, capsys):
    recipe = write_recipe()
    assert fit(recipe, "--run_dir", "mine/first") == 0
    assert (toy_world / "mine" / "first" / "metrics.csv").is_file()
    assert (toy_world / "mine" / "first" / "config.yaml").is_file()
    assert not (toy_world / "runs").exists()
    assert fit(recipe, "--run_dir", "mine/first") == 2
    assert "The run folder 'mine/first' is not empty" in capsys.readouterr().err


def test_a_logger_of_the_recipe_is_respected(write_recipe, toy_world):
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "elsewhere", "--trainer.logger.name", "x"]
    assert fit(write_recipe(), *logger) == 0
    assert (toy_world / "elsewhere" / "x" / "version_0" / "metrics.csv").is_file()
    assert fit(write_recipe(), "--trainer.logger=false", "--trainer.enable_checkpointing=false") == 0
    assert not (toy_world / "runs").exists()


def test_a_dry_run_leaves_nothing(write_recipe, toy_world):
    assert fit(write_recipe(), "--trainer.fast_dev_run=true") == 0
    assert not (toy_world / "runs").exists()


def test_two_processes_share_one_folder(write_recipe, toy_world):
    recipe = write_recipe()
    options = ["--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true"]
    done = subprocess.run(
        [sys.executable, "-m", "lrl_core.cli", "fit", "--config", str(recipe), *options],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "LOCAL_RANK"} | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    runs = toy_world / "runs" / "toy"
    assert [p.name for p in runs.iterdir()] == ["version_0"]
    assert {p.name for p in (runs / "version_0").iterdir()} == {"checkpoints", "config.yaml", "metrics.csv"}


def test_a_stopped_run_does_not_look_like_a_finished_one(write_recipe, toy_world):
    command = [sys.executable, "-m", "lrl_core.cli", "fit", "--config", str(write_recipe())]
    running = subprocess.Popen(
        [*command, "--trainer.max_epochs=100000", "--trainer.limit_val_batches=0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    waited = time.monotonic()
    while not list((toy_world / "runs").rglob("metrics.csv")) and time.monotonic() - waited < 120:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 128 + signal.SIGTERM


# Lightning's habits


def test_shipped_recipes_go_by_name(toy_world, shipped_recipes):
    assert main(["fit", "--config=captioning/quickstart", "--trainer.max_epochs", "2"]) == 0
    run = toy_world / "runs" / "captioning-quickstart" / "version_0"
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 2


def test_several_configs_and_overrides(write_recipe, toy_world, capsys):
    base = write_recipe()
    over = toy_world / "over.yaml"
    over.write_text("model: {reward: {init_args: {price: 5.0}}}")
    with pytest.raises(SystemExit) as stopped:
        fit(
            base,
            "--config",
            str(over),
            "--model.decoder.temperature=0.5",
            "--model.baseline",
            "LeaveOneOut",
            "--print_config",
        )
    assert stopped.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["reward"]["init_args"]["price"] == 5.0
    assert printed["model"]["decoder"]["init_args"]["temperature"] == 0.5
    assert printed["model"]["baseline"]["class_path"] == "lrl_plugins.baselines.means.LeaveOneOut"
    assert not (toy_world / "runs").exists()


def test_help_of_a_plugin_by_its_name(toy_world, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--model.reward.help", "CountA"])
    assert stopped.value.code == 0
    assert "Paid per letter." in capsys.readouterr().out


def test_help_needs_no_config(toy_world, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "Names of parts: `lrl plugins`" in text
    assert "--model.reward" in text
    assert "--run_dir" in text


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_checkpoint_is_measured(write_recipe, toy_world, command):
    recipe = write_recipe()
    fit(recipe)
    saved = one(toy_world, "runs/toy/version_0/checkpoints/*.ckpt")
    assert main([command, "--config", str(recipe), "--ckpt_path", str(saved)]) == 0
    run = toy_world / "runs" / "toy" / "version_1"
    assert (run / "config.yaml").is_file()
    if command != "predict":
        assert "/length" in (run / "metrics.csv").read_text()


def test_resume(write_recipe, toy_world):
    recipe = write_recipe()
    fit(recipe)
    saved = one(toy_world, "runs/toy/version_0/checkpoints/*.ckpt")
    assert fit(recipe, "--ckpt_path", str(saved), "--trainer.max_epochs", "2") == 0
    resumed = torch.load(one(toy_world, "runs/toy/version_1/checkpoints/*.ckpt"), weights_only=True)
    assert resumed["epoch"] == 1
    assert int(resumed["state_dict"]["steps_done"]) == 4


def test_nothing_is_advertised(write_recipe, capfd, caplog):
    fit(write_recipe())
    captured = capfd.readouterr()
    assert "Tip" not in captured.out + captured.err
    assert "does not have many workers" not in captured.err


# Plugins by name


def test_only_what_is_named_is_imported(write_recipe):
    code = (
        "import sys; from lrl_core.cli import main\n"
        f"try: main(['fit', '--config', {str(write_recipe())!r}, '--print_config'])\n"
        "except SystemExit: pass\n"
        "print('imported:', sorted(m for m in sys.modules if m.startswith(('lrl_plugins.', 'toy_world.'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(yaml.safe_load(done.stdout.splitlines()[-1].removeprefix("imported: ")))
    assert "toy_world.parts" in imported
    assert "lrl_plugins.decoders.sample" in imported
    assert not imported & {
        "toy_world.late",
        "toy_world.needy",
        "lrl_plugins.rewards.cider",
        "lrl_plugins.policies.causal_lm",
    }


def test_a_broken_plugin_stops_only_the_recipe_that_names_it(write_recipe, capsys):
    assert fit(write_recipe(lambda r: r["model"].update(reward="Late"))) == 2
    error = capsys.readouterr().err
    assert "toy.yaml: model.reward: The reward 'Late' of package toy-world 1.2 cannot be loaded" in error
    assert "RuntimeError: no licence file" in error
    assert "Traceback" not in error
    assert fit(write_recipe(), "--trainer.fast_dev_run=true") == 0


def replace_source(recipe):
    recipe["data"]["init_args"]["source"]["class_path"] = "Sourec"


WRONG = {
    "name": (
        lambda r: r["model"].update(reward="CountB"),
        [],
        "There is no reward 'CountB'. Did you mean 'CountA'? Installed rewards: ",
    ),
    "class_path": (lambda r: r["model"]["decoder"].update(class_path="Sampel"), [], "Did you mean 'Sample'?"),
    "helper": (replace_source, [], "There is no class 'Sourec'. Did you mean 'Source'?"),
    "optimizer": (lambda r: r["model"].update(optimizer="SDG"), [], "There is no class 'SDG'. Did you mean 'SGD'?"),
    "callback": (
        lambda r: r["trainer"].update(callbacks=[{"class_path": "ModelCheckpont"}]),
        [],
        "There is no callback 'ModelCheckpont'. Did you mean 'ModelCheckpoint'?",
    ),
    "kind": (lambda r: r["model"].update(reward="Greedy"), [], "'Greedy' is a decoder; expected a reward."),
    "option name": (None, ["--model.reward=CountB"], "--model.reward: There is no reward 'CountB'."),
    "option broken": (None, ["--model.reward", "Needy"], "--model.reward: The reward 'Needy' of package toy-world"),
    "help name": (None, ["--data.help", "LeterTask"], "Did you mean 'LetterTask'?"),
    "argument": (lambda r: r["model"]["reward"]["init_args"].update(prize=1), [], "'prize' is not accepted"),
    "type": (None, ["--model.reward.price", "dear"], "Expected a <class 'float'>. Got value: dear"),
    "key": (lambda r: r["model"].update(rewrad=1), [], "does not accept option 'model.rewrad'"),
    "missing": (lambda r: r["model"].pop("policy"), [], "required: fit.model.policy"),
    "part": (None, ["--data.source.rows=0"], "Source: rows is 0; expected at least 1. Give the task some prompts."),
    "facts": (None, ["--data.fail=true"], "LetterTask: fail is true; expected false. Leave it out."),
    "check": (None, ["--model.baseline=LeaveOneOut"], "LeaveOneOut"),
    "checkpoint": (None, ["--ckpt_path", "nowhere.ckpt"], "--ckpt_path: there is no nowhere.ckpt"),
    "config": (None, ["--config", "capt/x"], "neither a file nor a shipped recipe 'capt/x'"),
    "devices": (None, ["--trainer.accelerator=cuda", "--trainer.devices=9"], "Misconfiguration"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_block(write_recipe, toy_world, capsys, case):
    change, options, said = WRONG[case]
    assert fit(write_recipe(change), *options) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert sum(line.startswith("lrl: error: ") for line in captured.err.splitlines()) == 1
    assert "Traceback" not in captured.err
    assert not (toy_world / "runs").exists() or case == "devices"


def test_a_traceback_if_asked(write_recipe, monkeypatch):
    monkeypatch.setenv("LRL_TRACEBACK", "1")
    with pytest.raises(Exception, match="rows is 0") as caught:
        fit(write_recipe(), "--data.source.rows=0")
    assert caught.value.__cause__ is not None


def test_defects_in_the_training_step_keep_their_traceback(write_recipe, monkeypatch):
    from toy_world.parts import LetterTask

    def broken(self):
        raise KeyError("a defect")

    monkeypatch.setattr(LetterTask, "train_dataloader", broken)
    with pytest.raises(KeyError, match="a defect"):
        fit(write_recipe())


# Precision


@pytest.mark.parametrize("asked", [None, "bf16-mixed"])
def test_a_run_says_its_precision_and_warns_where_it_is_imitated(write_recipe, caplog, recwarn, asked):
    """This machine's own answer decides which of the two holds; what it says of processors has tests of its own."""
    units = precision.has_bf16(torch.device("cpu"))
    options = [] if asked is None else [f"--trainer.precision={asked}"]
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        assert fit(write_recipe(), *options) == 0
    line = precision.reason(asked or "32-true", "cpu", units)
    assert [record.getMessage() for record in caplog.records].count(line) == 1
    warned = any("has no bf16 units" in str(warning.message) for warning in recwarn)
    assert warned == (asked is not None and units is False)


def test_a_run_out_of_the_box_never_computes_in_bf16():
    for name, path in recipes.shipped().items():
        chosen = (yaml.safe_load(path.read_text()).get("trainer") or {}).get("precision")
        assert chosen in (None, "32-true"), name

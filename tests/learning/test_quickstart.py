"""The quickstart as users run it: reinforcement learning must beat maximum likelihood on held-out scenes."""

import csv

import pytest

from lrl_core.commands import train


def scores(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["val/CIDErD"]) for row in csv.DictReader(file) if row.get("val/CIDErD")]


@pytest.mark.slow
def test_self_critical_training_beats_its_start(tmp_path):
    assert train.main(["fit", "--config", "captioning/quickstart", f"--run_dir={tmp_path / 'run'}"]) == 0
    held_out = scores(tmp_path / "run")
    after_likelihood, after_reinforcement = held_out[5], held_out[-1]
    assert after_reinforcement > after_likelihood + 0.1

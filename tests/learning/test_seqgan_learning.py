"""SeqGAN against a known distribution: maximum likelihood comes near it, and the discriminator leads nearer still."""

import csv
from statistics import mean

import pytest

from lrl_core.commands import train
from lrl_plugins.tasks.synthetic_oracle.bounds import bounds
from lrl_plugins.tasks.synthetic_oracle.data import SyntheticOracle

SEEDS = (1, 2, 3)


def fit(recipe, folder, seed, *options):
    """The held-out oracle_nll at each validation, with a standard error below 0.01."""
    seeds = [f"--seed_everything={seed}", "--data.held_out=10000", "--trainer.accelerator=cpu"]
    silent = ["--trainer.enable_progress_bar=false", "--trainer.num_sanity_val_steps=0"]
    silent += ["--trainer.check_val_every_n_epoch=2"]
    assert train.main(["fit", "--config", recipe, *seeds, *silent, *options, f"--run_dir={folder}"]) == 0
    with (folder / "metrics.csv").open() as file:
        return [float(row["val/oracle_nll"]) for row in csv.DictReader(file) if row.get("val/oracle_nll")]


@pytest.mark.slow
def test_adversarial_training_beats_maximum_likelihood(tmp_path):
    task = SyntheticOracle()
    limits = bounds(task.oracle, task.length)
    before, after = [], []
    for seed in SEEDS:
        start = tmp_path / f"likelihood-{seed}"
        before.append(fit("adversarial/maximum_likelihood", start, seed)[-1])
        checkpoint = start / "checkpoints" / "last.ckpt"
        goes_on = fit("adversarial/seqgan", tmp_path / f"seqgan-{seed}", seed, f"--model.start_from={checkpoint}")
        after.append(goes_on[-1])
    assert all(limits["oracle_entropy"].mean < nll < limits["random_nll"].mean for nll in before)
    assert mean(after) < mean(before)

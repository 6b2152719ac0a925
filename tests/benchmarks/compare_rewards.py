"""Reinforcement with several rewards from one maximum-likelihood start: the test metrics of all, a table in Markdown.

    python tests/benchmarks/compare_rewards.py data_to_text/self_critical --data ../shared/data/e2e_nlg \
        --rewards BLEU CIDErD --out runs/rewards_e2e --epochs 6

The recipe must begin with a warm-up. It is run once; each reward then goes on from there with the recipe's decoder,
baseline and optimiser. Every run is an `lrl fit` with one thread, two side by side; every number is what
`lrl test` says of the run's last checkpoint. A reward is a name or a YAML value, as in
`--rewards BLEU '{class_path: SentenceSimilarity, init_args: {model: PATH}}'`.
"""

import argparse
import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from running import lrl

from lrl_core.commands import recipes

FILES = {
    "data_to_text": ("dev.jsonl.gz", "test.jsonl.gz", "test.jsonl.gz"),
    "paraphrase": ("train.jsonl.gz", "val.jsonl.gz", "test_2016.jsonl.gz"),
}
"""Training, validation and test file of each task's set, within --data."""


def fit(arguments: argparse.Namespace, name: str, *options: str) -> Path:
    """Train unless it is done; the run's folder."""
    run = arguments.out / name
    if not (run / "checkpoints" / "last.ckpt").exists():
        lrl("fit", "--config", arguments.recipe, *files(arguments), *options, f"--run_dir={run}")
    return run


def files(arguments: argparse.Namespace) -> list[str]:
    """Where the three splits are."""
    names = FILES[arguments.recipe.partition("/")[0]]
    splits = zip(("train", "val", "test"), names, strict=True)
    return [f"--data.init_args.source.init_args.{split}={arguments.data / name}" for split, name in splits]


def measure(arguments: argparse.Namespace, run: Path) -> dict[str, float]:
    """The test metrics of the run's last checkpoint."""
    folder = run / "test"
    if not (folder / "metrics.csv").exists():
        checkpoint = run / "checkpoints" / "last.ckpt"
        lrl("test", "--config", arguments.recipe, *files(arguments), f"--ckpt_path={checkpoint}", f"--run_dir={folder}")
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key.removeprefix("test/"): float(value) for key, value in rows[-1].items() if key.startswith("test/")}


def reinforce(arguments: argparse.Namespace, start: Path, reward: str, seed: int) -> dict[str, float]:
    """One run of reinforcement learning, and what it reached."""
    options = [
        f"--model.start_from={start / 'checkpoints' / 'last.ckpt'}",
        "--model.warm_up.epochs=0",
        f"--model.reward={reward}",
        f"--trainer.max_epochs={arguments.epochs}",
        f"--seed_everything={seed}",
    ]
    name = "".join(letter if letter.isalnum() else "_" for letter in reward)[:60]
    return measure(arguments, fit(arguments, f"{name}-{seed}", *options))


def main() -> None:
    """Train, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="A shipped recipe with a warm-up.")
    parser.add_argument("--data", type=Path, required=True, help="Folder of the set.")
    parser.add_argument("--rewards", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, help="Folder of the runs; finished ones are not repeated.")
    parser.add_argument("--epochs", type=int, required=True, help="Epochs of reinforcement learning.")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    recipe = yaml.safe_load(recipes.resolve(arguments.recipe).read_text())
    warm_up = recipe["model"]["warm_up"]["epochs"]
    start = fit(arguments, "maximum_likelihood", f"--trainer.max_epochs={warm_up}")
    before = measure(arguments, start)
    jobs = [(reward, seed) for seed in range(1, arguments.seeds + 1) for reward in arguments.rewards]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: reinforce(arguments, start, *job), jobs))
    print(f"| reward | seed | {' | '.join(before)} |\n|---|---|{'---|' * len(before)}")
    print(f"| none: maximum likelihood, {warm_up} epochs | 1 | {' | '.join(f'{v:.3f}' for v in before.values())} |")
    for (reward, seed), scores in zip(jobs, results, strict=True):
        print(f"| `{reward}` | {seed} | {' | '.join(f'{scores[name]:.3f}' for name in before)} |")


if __name__ == "__main__":
    main()

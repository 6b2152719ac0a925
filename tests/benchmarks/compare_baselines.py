"""Self-critical training on real pictures with four baselines, from one maximum-likelihood start: a table in Markdown.

    python tests/benchmarks/compare_baselines.py --data ../shared/data/emoji_names --out runs/emoji

Every run is an `lrl fit` of a shipped recipe with one thread; two run side by side. CIDEr-D is that of greedy answers
to the test split, with the document frequencies of its own references.
"""

import argparse
import csv
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from running import lrl

from lrl_core.metrics.cider import cider_d
from lrl_core.tokenizer import words

BASELINES = ("Constant", "BatchMean", "LeaveOneOut", "SelfCritical")


def data_options(folder: Path) -> list[str]:
    """Where the pictures are and what their captions are."""
    prefix = "--data.init_args.source.init_args"
    return [
        f"{prefix}.path={folder / 'emoji.jsonl.gz'}",
        f"{prefix}.images={folder / 'images.npz'}",
        f"{prefix}.captions_fields=[name]",
    ]


def measure(run: Path, recipe: str, data: list[str]) -> float:
    """Mean CIDEr-D of the greedy answers to the test split by the run's last checkpoint."""
    checkpoint, folder = run / "checkpoints" / "last.ckpt", run / "predict"
    if not folder.exists():
        lrl("predict", "--config", recipe, *data, f"--ckpt_path={checkpoint}", f"--run_dir={folder}")
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    candidates = [words(row["text"]) for row in rows]
    references = [[words(text) for text in row["references"]] for row in rows]
    return statistics.mean(cider_d(candidates, references))


def start(arguments: argparse.Namespace, data: list[str]) -> tuple[Path, float]:
    """The maximum-likelihood run that all others begin with."""
    run, recipe = arguments.out / "maximum_likelihood", "captioning/maximum_likelihood_small"
    if not (run / "checkpoints" / "last.ckpt").exists():
        lrl("fit", "--config", recipe, *data, f"--run_dir={run}", f"--trainer.max_epochs={arguments.likelihood_epochs}")
    return run / "checkpoints" / "last.ckpt", measure(run, recipe, data)


def reinforce(
    arguments: argparse.Namespace, data: list[str], first: Path, baseline: str, seed: int
) -> dict[str, float]:
    """One run of self-critical training with another baseline; what it reached and how its gradient varied."""
    run, recipe = arguments.out / f"{baseline}-{seed}", "captioning/self_critical_small"
    if not (run / "checkpoints" / "last.ckpt").exists():
        options = [
            f"--model.baseline={baseline}",
            f"--model.start_from={first}",
            f"--seed_everything={seed}",
            f"--trainer.max_epochs={arguments.epochs}",
            "--trainer.log_every_n_steps=1",
            "--trainer.num_sanity_val_steps=0",
        ]
        lrl("fit", "--config", recipe, *data, *options, f"--run_dir={run}")
    with (run / "metrics.csv").open() as file:
        norms = [float(row["train/gradient_norm"]) for row in csv.DictReader(file) if row["train/gradient_norm"]]
    return {
        "steps": len(norms),
        "cider_d": measure(run, recipe, data),
        "norm": statistics.mean(norms),
        "variance": statistics.variance(norms),
    }


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def main() -> None:
    """Train, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with emoji.jsonl.gz and images.npz.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of the runs; finished ones are not repeated.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--likelihood_epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    data = data_options(arguments.data)
    first, before = start(arguments, data)
    jobs = [(baseline, seed) for seed in range(1, arguments.seeds + 1) for baseline in BASELINES]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: reinforce(arguments, data, first, *job), jobs))
    print(f"Start (maximum likelihood): CIDEr-D {before:.3f}. Steps of each run: {results[0]['steps']}.\n")
    print("| baseline | CIDEr-D, test | gain | gradient norm, mean | gradient norm, variance |\n|---|---|---|---|---|")
    for baseline in BASELINES:
        mine = [result for job, result in zip(jobs, results, strict=True) if job[0] == baseline]
        scores = [result["cider_d"] for result in mine]
        gain = statistics.mean(scores) - before
        norms, variances = [r["norm"] for r in mine], [r["variance"] for r in mine]
        print(f"| `{baseline}` | {spread(scores, 3)} | {gain:+.3f} | {spread(norms, 3)} | {spread(variances, 4)} |")


if __name__ == "__main__":
    main()

"""One GRPO training step, side by side: TRL's trainer and `lrl fit`, in processes of their own that take turns.

Both train the same GPT-2 in float32 with a reference model and beta 0.04, on the same prompts. Times are medians over
all steps but each process' first; memory is the highest resident set. `trl@malloc` lets the allocator keep freed
memory. Needs `pip install trl`.

    python tests/benchmarks/rl_step.py --data DATA                 # every answer runs to the cap
    python tests/benchmarks/rl_step.py --data DATA --hazard 0.05   # answers end by themselves
"""

import argparse
import json
import os
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import models_for_speed as shapes
from lightning.pytorch import Callback
from running import ask, say

BETA = 0.04
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with multi30k_captions5")
    parser.add_argument("--engines", default="trl,lrl,trl@malloc")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each process, after one that warms up")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4, help="answers to each prompt")
    parser.add_argument("--prompt-length", type=int, default=32)
    parser.add_argument("--new", type=int, default=64, help="longest answer, in tokens")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--hazard", type=float, default=0.0, help="chance of the end token; 0: all run to the cap")
    parser.add_argument("--token-budget", type=int, default=1024, help="of lrl: padded tokens per micro-batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Save model, tokenizer and prompts where every engine finds them."""
    tokenizer = shapes.save_tokenizer(options.data, folder / "model")
    shapes.gpt2(options.layers, options.width, options.hazard).save_pretrained(folder / "model")
    texts = shapes.prompts(options.data, tokenizer, max(64, options.prompts), options.prompt_length)
    lines = [json.dumps({"prompt": text, "answer": "a"}) for text in texts]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")


def report(steps: list[float], tokens: list[int], parts: dict[str, float]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say({"steps": steps, "tokens": tokens, "parts": parts, "peak": peak})


def run_trl(options: argparse.Namespace) -> None:
    """Train with TRL's GRPOTrainer; its reward is the length in words, which costs nothing."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(options.threads)
    marks: list[float] = []
    tokens: list[int] = []

    class Mark(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

    def by_length(completions: list[str], completion_ids: Any = None, **others: Any) -> list[float]:
        tokens.append(sum(map(len, completion_ids)))
        return [-abs(len(text.split()) - 20) / 20 for text in completions]

    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        per_device_train_batch_size=options.prompts * options.samples,
        num_generations=options.samples,
        max_completion_length=options.new,
        beta=BETA,
        max_steps=options.steps + 1,
        logging_steps=1000,
        learning_rate=1e-6,
        temperature=1.0,
    )
    lines = (options.folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.folder / "model"),
        args=config,
        reward_funcs=by_length,
        processing_class=AutoTokenizer.from_pretrained(options.folder / "model"),
        callbacks=[Mark()],
        train_dataset=Dataset.from_dict({"prompt": [json.loads(line)["prompt"] for line in lines] * 4}),
    )
    trainer.train()
    report([end - start for start, end in pairwise(marks[1:])], tokens[1:], {})


class Mark(Callback):
    """Times whole training steps of a run of lrl and prints what it saw."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.tokens: list[int] = []
        self.parts: list[dict[str, float]] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.marks.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.marks.append(time.perf_counter())
        self.tokens.append(sum(int(part.rollout.action_mask.sum()) for part in module.collected))
        logged = trainer.callback_metrics
        self.parts.append({name: float(value) for name, value in logged.items() if name.startswith("time/")})

    def on_train_end(self, trainer: Any, module: Any) -> None:
        steps = [end - start for start, end in pairwise(self.marks[1:])]
        names = self.parts[-1]
        report(steps, self.tokens[1:], {name: median(part[name] for part in self.parts[1:]) for name in names})


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """What `lrl fit` reads: TRL's step in its words."""
    prompts = str(options.folder / "prompts.jsonl")
    source = {
        "train": prompts,
        "val": prompts,
        "test": prompts,
        "prompt_field": "prompt",
        "references_fields": ["answer"],
    }
    return {
        "seed_everything": 1,
        "trainer": {
            "max_steps": options.steps + 1,
            "accelerator": "cpu",
            "devices": 1,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "log_every_n_steps": 1,
            "callbacks": ["rl_step.Mark"],
        },
        "model": {
            "policy": {
                "class_path": "CausalLM",
                "init_args": {"path": str(options.folder / "model"), "begin_with_bos": False},
            },
            "decoder": {
                "class_path": "Sample",
                "init_args": {"max_length": options.new, "samples": options.samples},
            },
            "reward": {"class_path": "Length", "init_args": {"target": 20}},
            "baseline": {"class_path": "GroupMean", "init_args": {"scale": "group", "epsilon": 1e-4}},
            "objective": {"class_path": "PPO", "init_args": {"kl_weight": BETA, "kl_estimator": "k3"}},
            "replay": "Fresh",
            "reference": {"path": None},
            "token_budget": options.token_budget,
            "gradient_clip": 1.0,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-6, "fused": True}},
        },
        "data": {
            "class_path": "Summarisation",
            "init_args": {
                "source": {"class_path": "JsonLines", "init_args": source},
                "tokenizer": str(options.folder / "model"),
                "batch_size": options.prompts,
                "max_prompt_length": options.prompt_length,
            },
        },
    }


def run_lrl(options: argparse.Namespace) -> None:
    """Train with the command line of lrl."""
    import torch
    import yaml

    from lrl_core.cli import main as lrl

    torch.set_num_threads(options.threads)
    file = options.folder / f"recipe{os.getpid()}.yaml"
    file.write_text(yaml.safe_dump(recipe(options)), encoding="utf-8")
    os.chdir(options.folder)
    lrl(["fit", "--config", str(file)])


def child(engine: str, folder: Path) -> dict[str, Any]:
    """Run one engine in a process of its own."""
    name, _, knob = engine.partition("@")
    environment = {
        "OMP_NUM_THREADS": str(arguments().threads),
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    return ask("--child", name, "--folder", str(folder), environment=environment | (KEEP_MEMORY if knob else {}))


def main() -> None:
    options = arguments()
    if options.child:
        return run_trl(options) if options.child == "trl" else run_lrl(options)
    engines = options.engines.split(",")
    seen: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    with tempfile.TemporaryDirectory() as folder:
        prepare(options, Path(folder))
        for _ in range(options.rounds):
            for engine in engines:
                seen[engine].append(child(engine, Path(folder)))
    seconds = {engine: median(step for run in runs for step in run["steps"]) for engine, runs in seen.items()}
    peak = {engine: median(run["peak"] for run in runs) for engine, runs in seen.items()}
    tokens = {engine: median(count for run in runs for count in run["tokens"]) for engine, runs in seen.items()}
    print("| engine | step, s | of lrl | tokens drawn | tokens/s | peak memory, MiB | of lrl |")
    print("|---|---|---|---|---|---|---|")
    for engine in engines:
        ratio, memory = seconds[engine] / seconds["lrl"], peak[engine] / peak["lrl"]
        rate = tokens[engine] / seconds[engine]
        print(
            f"| {engine} | {seconds[engine]:.2f} | {ratio:.2f} | {tokens[engine]:.0f} | {rate:.0f} "
            f"| {peak[engine]:.0f} | {memory:.2f} |"
        )
    parts = [run["parts"] for run in seen["lrl"]]
    print("lrl's step, s:", {name: round(median(part[name] for part in parts), 3) for name in parts[0]})


if __name__ == "__main__":
    main()

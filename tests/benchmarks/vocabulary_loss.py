"""Log-probability, entropy and backward pass over a large vocabulary: time, and memory beyond the inputs.

Every variant runs in processes of its own that take turns. `naive` keeps all logits, `trl selective` and `trl fused`
are TRL's two ways (`pip install trl`; left out where it is missing), the others go through lrl_core.vocab as the
objectives do: a weight per token, an entropy bonus with gradient, and a ratio of whole sequences.

    python tests/benchmarks/vocabulary_loss.py
"""

import argparse
import importlib.util
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from running import ask, say

QUIET = {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}
VARIANTS = ("naive", "trl selective", "trl fused", "lrl token", "lrl entropy", "lrl sequence")


def resident() -> float:
    """MiB of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Peak:
    """The most memory held while the block runs, beyond what was held before."""

    def __enter__(self) -> "Peak":
        self.base = self.most = resident()
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, resident())

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.watcher.join()
        self.extra = max(self.most, resident()) - self.base


def losses(
    hidden: Any, weight: Any, tokens: Any, advantage: Any, shape: tuple[int, int]
) -> dict[str, Callable[[], Any]]:
    """What each variant computes; the sum of log-probabilities comes back, for comparison."""
    import torch

    from lrl_core.sampling import Sampling
    from lrl_core.vocab import Head, score_vocabulary

    positions = torch.arange(shape[1]).repeat(shape[0])

    def naive() -> Any:
        every = (hidden @ weight.t()).log_softmax(-1)
        logprobs = every.gather(-1, tokens[:, None]).squeeze(-1)
        with torch.no_grad():
            -(every.exp() * every).sum(-1)
        (-(advantage * logprobs).sum()).backward()
        return logprobs.detach().sum()

    def selective() -> Any:
        from trl.trainer.utils import selective_log_softmax_and_entropy

        logits = (hidden @ weight.t()).view(*shape, -1)
        logprobs, _ = selective_log_softmax_and_entropy(logits, tokens.view(shape), entropy_requires_grad=False)
        (-(advantage.view(shape) * logprobs).sum()).backward()
        return logprobs.detach().sum()

    def fused() -> Any:
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction
        from trl.trainer import utils

        size = utils._CHUNKED_LOGPROB_CHUNK_SIZE
        logprobs, *_ = ChunkedLogProbFunction.apply(hidden, weight, None, tokens, 1.0, size, None, 1.0, ("entropy",))
        (-(advantage * logprobs).sum()).backward()
        return logprobs.detach().sum()

    def scores() -> Any:
        return score_vocabulary(hidden, Head(weight, None), tokens, positions, Sampling(), 1)

    def token() -> Any:
        said = scores()
        (-(advantage * said.logprobs).sum()).backward()
        return said.logprobs.detach().sum()

    def entropy() -> Any:
        said = scores()
        (-(advantage * said.logprobs).sum() - 0.01 * said.entropy.sum()).backward()
        return said.logprobs.detach().sum()

    def sequence() -> Any:
        said = scores()
        old = said.logprobs.detach() - 0.01
        ratio = (said.logprobs - old).view(shape).mean(1).exp()
        (-(advantage.view(shape)[:, 0] * ratio).sum()).backward()
        return said.logprobs.detach().sum()

    return dict(zip(VARIANTS, (naive, selective, fused, token, entropy, sequence), strict=True))


def run(options: argparse.Namespace) -> None:
    """One variant, once to warm the libraries up on a small piece and once for the record."""
    import torch

    torch.set_num_threads(options.threads)
    episodes, steps, vocabulary, width = options.shape
    torch.manual_seed(0)

    def make(count: int) -> tuple[Any, ...]:
        hidden = (torch.randn(count * steps, width) * 0.5).requires_grad_()
        weight = (torch.randn(vocabulary, width) * 0.05).requires_grad_()
        hidden.grad, weight.grad = torch.zeros_like(hidden), torch.zeros_like(weight)
        return hidden, weight, torch.randint(vocabulary, (count * steps,)), torch.randn(count * steps)

    losses(*make(1), (1, steps))[options.child]()
    loss = losses(*make(episodes), (episodes, steps))[options.child]
    with Peak() as memory:
        start = time.perf_counter()
        total = loss()
        seconds = time.perf_counter() - start
    say({"seconds": seconds, "memory": memory.extra, "total": float(total)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=[64, 128, 50304, 256], metavar=("B", "T", "V", "D"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return run(options)
    peers = importlib.util.find_spec("trl") is not None
    variants = [name for name in options.variants.split(",") if peers or not name.startswith("trl")]
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name in variants:
            seen[name].append(ask("--child", name, environment=QUIET))
    middle = {
        name: {key: median(run[key] for run in runs) for key in ("seconds", "memory", "total")}
        for name, runs in seen.items()
    }
    base = middle.get("trl fused") or middle["naive"]
    against = "trl fused" if "trl fused" in middle else "naive"
    print(f"| variant | s | of {against} | extra memory, MiB | of {against} | sum of log-probabilities |")
    print("|---|---|---|---|---|---|")
    for name, row in middle.items():
        print(
            f"| {name} | {row['seconds']:.2f} | 1/{base['seconds'] / row['seconds']:.2f} | {row['memory']:.0f} "
            f"| 1/{base['memory'] / max(1.0, row['memory']):.1f} | {row['total']:.3f} |"
        )


if __name__ == "__main__":
    main()

"""Between which bounds oracle_nll lies: what the oracle's own sentences score, and sentences of random tokens.

Run as a program: `python -m lrl_plugins.tasks.synthetic_oracle.bounds --path target_params.npz --length 20`. The
options are those of the task; without any, the made-up oracle is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from lrl_plugins.tasks.synthetic_oracle.data import SyntheticOracle
from lrl_plugins.tasks.synthetic_oracle.oracle import Oracle


@dataclass(frozen=True)
class Estimate:
    """A mean over sentences, in nats per token."""

    mean: float
    """The estimate."""
    error: float
    """Its standard error."""

    @classmethod
    def of(cls, losses: Tensor) -> "Estimate":
        """From losses [B T] of sentences, which are independent of each other."""
        by_sentence = losses.double().mean(1)
        return cls(by_sentence.mean().item(), (by_sentence.std() / len(losses) ** 0.5).item())


def bounds(oracle: Oracle, length: int, count: int = 10000, seed: int = 0) -> dict[str, Estimate]:
    """oracle_entropy, what the oracle's own sentences score, and random_nll, what uniformly random ones do.

    No policy that equals the oracle scores less than oracle_entropy; one that leaves out the oracle's less probable
    sentences does. Draw more sentences for smaller errors.

    Args:
        oracle: Who judges.
        length: Tokens in a sentence.
        count: Sentences drawn for each.
        seed: Of the sentences.
    """
    generator = torch.Generator().manual_seed(seed)
    own = oracle.sample(count, length, generator)
    random = torch.randint(oracle.vocabulary, (count, length), generator=generator).to(own.device)
    return {"oracle_entropy": Estimate.of(oracle.nll(own)), "random_nll": Estimate.of(oracle.nll(random))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the bounds of the oracle that the command line describes."""
    parser = ArgumentParser(prog="bounds", description="Bounds on oracle_nll, in nats per token.")
    parser.add_argument("--count", type=int, default=10000, help="Sentences drawn for each.")
    skipped = {"sentences", "held_out", "batch_size", "seed"}
    parser.add_class_arguments(SyntheticOracle, skip=skipped)
    given = vars(parser.parse_args(arguments))
    count = given.pop("count")
    task = SyntheticOracle(**given)
    for name, estimate in bounds(task.oracle, task.length, count).items():
        print(f"{name:15}{estimate.mean:.4f} +- {estimate.error:.4f}")


if __name__ == "__main__":
    main()

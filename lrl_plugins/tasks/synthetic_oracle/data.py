"""The synthetic-oracle task: sentences of a known distribution, as targets of empty prompts."""

import copy
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset
from torchmetrics import Metric

from lrl_core.interfaces import TaskFacts
from lrl_core.types import Prompts
from lrl_plugins.tasks.splits import Serving, SplitTask
from lrl_plugins.tasks.synthetic_oracle.metric import OracleMetrics
from lrl_plugins.tasks.synthetic_oracle.oracle import Oracle
from lrl_plugins.tasks.synthetic_oracle.tokens import NumberTokenizer

Row = tuple[str, int, Int[Tensor, " T"]]
"""Name, group number and tokens of one sentence."""


class SyntheticOracle(SplitTask):
    """Write as an LSTM with known random weights does (Yu et al. 2017, SeqGAN). Without arguments: a small made-up one.

    The oracle writes all sentences; they have a fixed length, which the decoder's max_length must be, no end token, and
    stand below empty prompts: a training sentence to learn from with each, or only a number with which to draw one. How
    good a policy is can be said exactly: by the likelihood of its sentences under the oracle.

    Held-out metrics: oracle_nll (per token, in nats, of the policy's sentences; use Sample as evaluation_decoder) and
    distinct_sentences. `perplexity` is that of the policy on the oracle's held-out sentences. Between which bounds
    oracle_nll lies: `python -m lrl_plugins.tasks.synthetic_oracle.bounds`.

    Args:
        path: A .npz file with the oracle's weights (see Oracle); None draws them from N(0, 1).
        length: Tokens in a sentence.
        vocabulary: How many tokens a made-up oracle has; a file says so itself.
        embedding: Width of a made-up oracle's token vectors.
        hidden: Width of a made-up oracle's state.
        sentences: Training sentences.
        held_out: Sentences that the policy writes in a validation and in a test, with as many of the oracle's own for
            the perplexity.
        batch_size: Sentences per step and rank.
        oracle_seed: Other seeds make up other oracles.
        seed: Of the sentences and of their order.
    """

    def __init__(
        self,
        path: str | None = None,
        length: int = 8,
        vocabulary: int = 50,
        embedding: int = 32,
        hidden: int = 32,
        sentences: int = 10000,
        held_out: int = 2000,
        batch_size: int = 64,
        oracle_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.path, self.length, self.batch_size = path, length, batch_size
        self.vocabulary, self.embedding, self.hidden, self.oracle_seed = vocabulary, embedding, hidden, oracle_seed
        self.sizes = {"val": held_out, "test": held_out, "train": sentences}
        self.seed = seed
        self._check({"length": length, "vocabulary": vocabulary, "embedding": embedding, "hidden": hidden})
        self._check({"sentences": sentences, "held_out": held_out, "batch_size": batch_size})

    @cached_property
    def oracle(self) -> Oracle:
        """Who writes the sentences."""
        if self.path is not None:
            return Oracle.load(self.path)
        return Oracle.drawn(self.vocabulary, self.embedding, self.hidden, self.oracle_seed)

    @cached_property
    def tokenizer(self) -> NumberTokenizer:
        """Text to ids and back: numbers."""
        return NumberTokenizer(self.oracle.vocabulary)

    def facts(self) -> TaskFacts:
        example = Sentences("example", 0, self.oracle.sample(2, self.length, torch.Generator().manual_seed(0)))
        return TaskFacts(self.tokenizer, (), collate([example[0, 0], example[1, 0]]))

    def metrics(self, stage: str) -> Metric:
        return OracleMetrics(copy.deepcopy(self.oracle))  # a copy moves to the device on which numbers are summed

    def splits(self) -> "dict[str, Sentences]":
        return self._rows

    def serving(self) -> Serving:
        return Serving("SyntheticOracle", "sentences", "Ask for some.", collate, self.batch_size, self.seed)

    def _check(self, numbers: dict[str, int]) -> None:
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"SyntheticOracle: got {name} {number}, expected at least 1. Correct the recipe.")

    @cached_property
    def _rows(self) -> "dict[str, Sentences]":
        # Each split has a generator of its own, so that the number of training sentences does not change the others.
        rows, first = {}, 0
        for number, (split, count) in enumerate(self.sizes.items()):
            generator = torch.Generator().manual_seed((self.seed << 8) + number)
            rows[split] = Sentences(split, first, self.oracle.sample(count, self.length, generator))
            first += count
        return rows


class Sentences(Dataset[Row]):
    """The sentences of one split; they are the same in every epoch.

    Args:
        split: Name of the split, for ids.
        first_group: Group number of the first one.
        tokens: The sentences.
    """

    def __init__(self, split: str, first_group: int, tokens: Int[Tensor, "N T"]) -> None:
        self.split, self.first_group, self.tokens = split, first_group, tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, key: tuple[int, int]) -> Row:
        row = key[0]
        return f"{self.split}-{row}", self.first_group + row, self.tokens[row]


def collate(rows: list[Row]) -> Prompts:
    """A batch of empty prompts, each with its sentence."""
    names, groups, sentences = zip(*rows, strict=True)
    return Prompts(
        tokens=torch.zeros(len(rows), 0, dtype=torch.long),
        lengths=torch.zeros(len(rows), dtype=torch.long),
        group=torch.tensor(groups),
        targets=torch.stack(sentences),
        target_lengths=torch.full((len(rows),), len(sentences[0])),
        examples=tuple({"id": name} for name in names),
    )

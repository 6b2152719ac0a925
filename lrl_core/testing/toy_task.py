"""A task small enough to train in milliseconds: say the prompt's letter, people would."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lrl_core.interfaces import Task, TaskFacts
from lrl_core.loader import ResumableLoader
from lrl_core.testing.toy import ToyTokenizer
from lrl_core.types import Prompts

EOS = 3


class ExactShare(Metric):
    """Share of answers that equal a reference."""

    hits: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("seen", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, ids: list[str], candidates: list[str], references: list[tuple[str, ...]]) -> None:
        """Count the answers that somebody gave."""
        self.hits += sum(text in known for text, known in zip(candidates, references, strict=True))
        self.seen += len(ids)

    def compute(self) -> dict[str, Tensor]:
        """The share, in [0, 1]."""
        return {"exact": self.hits / self.seen.clamp(min=1)}


class ToyTask(Task):
    """Prompts of one letter among a, b, c; the human answer is that letter and its successor, then the end.

    Args:
        prompts: How many training prompts.
        batch_size: Prompts per step and rank.
        seed: Order of the prompts.
    """

    def __init__(self, prompts: int = 12, batch_size: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.prompts, self.batch_size, self.seed = prompts, batch_size, seed
        self.tokenizer = ToyTokenizer(4, eos=EOS)
        self.tokenizer.pad = 0
        self.tokenizer.bos = EOS

    def facts(self) -> TaskFacts:
        """Everything there is to know."""
        references = tuple(self._reference(i) for i in range(self.prompts))
        return TaskFacts(self.tokenizer, references, self._collate([(0, 0), (1, 0)]))

    def metrics(self, stage: str) -> Metric:
        """The share of exact answers."""
        return ExactShare()

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled prompts."""
        return self._loader(shuffle=True)

    def val_dataloader(self) -> ResumableLoader:
        """The same prompts in order."""
        return self._loader(shuffle=False)

    def _loader(self, shuffle: bool) -> ResumableLoader:
        rows = _Rows(self.prompts)
        return ResumableLoader(rows, self._collate, self.batch_size, shuffle, trim=shuffle, seed=self.seed)

    def _reference(self, row: int) -> tuple[str, ...]:
        return (self.tokenizer.decode([row % 3, (row + 1) % 3]),)

    def _collate(self, keys: list[tuple[int, int]]) -> Prompts:
        rows = [row for row, _ in keys]
        targets = torch.tensor([[row % 3, (row + 1) % 3, EOS] for row in rows])
        return Prompts(
            tokens=torch.tensor([[row % 3] for row in rows]),
            lengths=torch.ones(len(rows), dtype=torch.long),
            group=torch.tensor(rows),
            references=tuple(self._reference(row) for row in rows),
            targets=targets,
            target_lengths=torch.full((len(rows),), 3),
            examples=tuple({"id": f"toy-{row}"} for row in rows),
        )


class _Rows(torch.utils.data.Dataset):
    """Row numbers; a row is its key."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key

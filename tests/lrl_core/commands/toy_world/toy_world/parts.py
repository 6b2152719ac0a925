"""The smallest task, policy and reward that a recipe can name."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric

from lrl_core.interfaces import Reward, Task, TaskFacts
from lrl_core.testing.toy import TablePolicy, ToyTokenizer
from lrl_core.types import Prompts, RewardSignal, Rollout


class Source:
    """Where the prompts come from: a helper that recipes name although it is no plugin.

    Args:
        rows: How many prompts there are.
    """

    def __init__(self, rows: int = 4) -> None:
        if rows < 1:
            raise ValueError(f"Source: rows is {rows}; expected at least 1. Give the task some prompts.")
        self.rows = rows


class LetterTask(Task):
    """Empty prompts, letters as words.

    Args:
        source: Where the prompts come from.
        fail: Raise when asked for the facts.
    """

    def __init__(self, source: Source, fail: bool = False) -> None:
        super().__init__()
        self.source, self.fail = source, fail

    def facts(self) -> TaskFacts:
        if self.fail:
            raise ValueError("LetterTask: fail is true; expected false. Leave it out.")
        return TaskFacts(ToyTokenizer(3, eos=2), (), prompts([0]))

    def metrics(self, stage: str) -> Metric:
        return MeanLength()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(self.source.rows), batch_size=2, collate_fn=prompts)

    def val_dataloader(self) -> DataLoader:
        return self.train_dataloader()

    def test_dataloader(self) -> DataLoader:
        return self.train_dataloader()

    def predict_dataloader(self) -> DataLoader:
        return self.train_dataloader()


def prompts(rows: list[int]) -> Prompts:
    none = torch.zeros(len(rows), dtype=torch.long)
    named = tuple({"id": str(row)} for row in rows)
    return Prompts(torch.zeros(len(rows), 0, dtype=torch.long), none, torch.tensor(rows), examples=named)


class MeanLength(Metric):
    """Mean number of letters."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("letters", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, ids: list[str], candidates: list[str], references: list[tuple[str, ...]]) -> None:
        self.letters += sum(map(len, candidates))
        self.count += len(candidates)

    def compute(self) -> dict[str, Tensor]:
        return {"length": self.letters / self.count}


class LetterPolicy(TablePolicy):
    """A table of logits for letters a, b and the end.

    Args:
        bias: Logit of the letter a.
    """

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__([[bias, 0.0, 0.0]], eos=2)
        self.float()


class CountA(Reward):
    """Pays for every letter a.

    Args:
        price: Paid per letter.
    """

    def __init__(self, price: float = 1.0) -> None:
        super().__init__()
        self.price = price

    def score(self, rollout: Rollout) -> RewardSignal:
        assert rollout.texts is not None
        total = torch.tensor([self.price * text.count("a") for text in rollout.texts])
        return RewardSignal(total.masked_fill(torch.tensor(["?" in text for text in rollout.texts]), torch.nan))


class NoReward:
    """Not derived from Reward."""

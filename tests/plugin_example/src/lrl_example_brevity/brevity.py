"""A reward for short answers, written with nothing but lrl's public interfaces."""

import torch

from lrl_core.interfaces import Reward
from lrl_core.types import RewardSignal, Rollout


class Brevity(Reward):
    """Pays for answers of about the wanted number of words.

    Args:
        words: The wanted number of words.
        price: Lost per word too many or too few.
    """

    def __init__(self, words: int, price: float = 0.1) -> None:
        super().__init__()
        if words < 1:
            raise ValueError(f"Brevity: words is {words}; expected at least 1. Say how long an answer should be.")
        self.words, self.price = words, price

    def score(self, rollout: Rollout) -> RewardSignal:
        """One minus the price of every missing or superfluous word."""
        assert rollout.texts is not None
        off = torch.tensor([abs(len(text.split()) - self.words) for text in rollout.texts])
        return RewardSignal((1 - self.price * off).to(rollout.tokens.device))

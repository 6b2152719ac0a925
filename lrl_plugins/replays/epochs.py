"""Several passes over the same fresh episodes, in parts."""

from collections.abc import Callable, Iterator

import torch

from lrl_core.interfaces import Collect, Replay
from lrl_core.types import Experience
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.replays.redraw import Redraw


class Epochs(Replay):
    """Draws new episodes each step and learns from them several times, in shuffled parts (Schulman et al. 2017, PPO).

    From the second update on the policy is no longer the one that drew the episodes: use an objective that weighs by
    the importance ratio, such as PPO.

    Args:
        epochs: Passes over the episodes of a step.
        minibatches: Parts, and updates, per pass. The episodes of one prompt, and its human answers, stay together.
        source: Where the episodes of a step come from; None: Fresh.
    """

    def __init__(self, epochs: int = 4, minibatches: int = 1, source: Replay | None = None) -> None:
        super().__init__()
        if epochs < 1 or minibatches < 1:
            raise ValueError(f"Epochs: got epochs {epochs} and minibatches {minibatches}; expected both >= 1.")
        self.epochs, self.minibatches = epochs, minibatches
        self.source = source or Fresh()
        if not self.source.samples:
            raise ValueError(
                f"Epochs: the source {type(self.source).__name__} draws no episodes; expected a replay that does, such "
                "as Fresh or Redraw. Human answers need no second pass: raise trainer.max_epochs."
            )
        if isinstance(self.source, Redraw) and self.source.drop and minibatches > 1:
            raise ValueError(
                "Epochs: got a source Redraw that drops prompts and more than one minibatch; expected the number of "
                "prompts to be known, because every part needs one. Set drop: false, or minibatches: 1."
            )

    def batches(self, collect: Collect, expert: Callable[[], Experience]) -> Iterator[Experience]:
        for experience in self.source.batches(collect, expert):
            for _ in range(self.epochs):
                yield from shuffled_parts(experience, self.minibatches)


def shuffled_parts(experience: Experience, parts: int) -> Iterator[Experience]:
    """The experience in this many parts of (nearly) as many prompts each, in an order drawn from torch's generator.

    The number of parts is the same on every rank, whatever the prompts are.

    Args:
        experience: Episodes of at least `parts` prompts.
        parts: How many.
    """
    assert experience.rollout is not None
    groups = experience.rollout.prompts.group.unique().cpu()
    if len(groups) < parts:
        raise ValueError(
            f"Epochs: this step has {len(groups)} different prompts; expected at least {parts}, one per minibatch. "
            "Lower minibatches, or raise data.batch_size."
        )
    if parts == 1:
        yield experience
        return
    for part in groups[torch.randperm(len(groups))].tensor_split(parts):
        yield experience.of_groups(set(part.tolist()))

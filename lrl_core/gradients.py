"""One update: micro-batches, gradients that travel between ranks once, clipping, and that they are finite."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor

from lrl_core.interfaces import Lesson
from lrl_core.ranks import sum_over_ranks, world_size
from lrl_core.types import Experience, Loss


@dataclass(frozen=True)
class Updater:
    """Makes optimiser steps that neither micro-batches nor the number of ranks change."""

    token_budget: int | None
    """Padded tokens per micro-batch; None reads the whole lesson at once."""
    clip: float | None
    """Limit on the gradient; None for no limit."""
    algorithm: Literal["norm", "value"]
    """Whether the limit is on the norm of all gradients, or on each entry."""

    def __post_init__(self) -> None:
        if self.token_budget is not None and self.token_budget < 1:
            raise ValueError(
                f"token_budget is {self.token_budget}; expected a number of padded tokens >= 1, or null to read the "
                "whole batch at once. Correct model.token_budget."
            )

    def step(
        self,
        module: LightningModule,
        loss_of: Callable[[Any], Loss],
        count_of: Callable[[Any], Tensor],
        lesson: Lesson,
        optimizer: LightningOptimizer,
        number: int,
    ) -> dict[str, Tensor]:
        """One optimiser step; returns numbers for the log.

        Args:
            module: Whose training it is.
            loss_of: The sum over the things of a micro-batch.
            count_of: How many things there are in the lesson.
            lesson: What is learnt from.
            optimizer: Of the parameters that learn.
            number: Which training step this is, for the error.
        """
        things = sum_over_ranks(count_of(lesson))
        count = torch.where(things > 0, things, 1)
        parts = lesson.split(self.token_budget)
        metrics: dict[str, Tensor] = {}
        optimizer.zero_grad()
        for i, part in enumerate(parts):
            with synchronised(module.trainer.strategy, i + 1 == len(parts)):
                loss = loss_of(part)
                # Data-parallel strategies average gradients over ranks; the loss is a sum over them.
                mean = (loss.total / count).sum() * world_size()
                module.manual_backward(mean)
            metrics = added(metrics, loss.metrics | {"loss": mean.detach() * len(parts)}, 1 / len(parts))
        metrics["gradient_norm"] = gradient_norm(optimizer, lesson, number)
        if self.clip is not None:
            module.clip_gradients(optimizer.optimizer, self.clip, self.algorithm)
        if bool((things > 0).any()):  # else there is nothing to learn, and momentum alone must not move anything
            optimizer.step()
        return metrics


def synchronised(strategy: Strategy, last: bool) -> AbstractContextManager:
    """Gradients travel between ranks once per update, with the last micro-batch."""
    return nullcontext() if last or not isinstance(strategy, ParallelStrategy) else strategy.block_backward_sync()


def gradient_norm(optimizer: LightningOptimizer, lesson: Lesson, step: int) -> Tensor:
    """The norm of all gradients; FloatingPointError with the prompts where it is not finite.

    Args:
        optimizer: Of the parameters.
        lesson: What the gradients were computed from.
        step: Which training step this is.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not bool(norm.isfinite()):
        source = (lesson.rollout or lesson.expert) if isinstance(lesson, Experience) else None
        ids = [example.get("id") for example in source.prompts.examples] if source else []
        raise FloatingPointError(
            f"The gradient norm is {float(norm)} at training step {step}; expected "
            f"a finite number. The prompts of that batch: {ids[:20]}. Lower the learning rate, or look at them."
        )
    return norm


def added(sums: dict[str, Tensor], metrics: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The sums with a micro-batch's share of its numbers."""
    return sums | {name: sums.get(name, 0) + value * share for name, value in metrics.items()}

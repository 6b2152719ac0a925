"""Gradients of an update: when they travel between ranks, and that they are finite."""

from contextlib import AbstractContextManager, nullcontext

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor

from lrl_core.types import Experience


def synchronised(strategy: Strategy, last: bool) -> AbstractContextManager:
    """Gradients travel between ranks once per update, with the last micro-batch."""
    return nullcontext() if last or not isinstance(strategy, ParallelStrategy) else strategy.block_backward_sync()


def gradient_norm(optimizer: LightningOptimizer, experience: Experience, step: int) -> Tensor:
    """The norm of all gradients; FloatingPointError with the prompts where it is not finite.

    Args:
        optimizer: Of the parameters.
        experience: What the gradients were computed from.
        step: Which training step this is.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not bool(norm.isfinite()):
        source = experience.rollout or experience.expert
        ids = [example.get("id") for example in source.prompts.examples] if source else []
        raise FloatingPointError(
            f"PolicyGradient: the gradient norm is {float(norm)} at training step {step}; expected "
            f"a finite number. The prompts of that batch: {ids[:20]}. Lower the learning rate, or look at them."
        )
    return norm

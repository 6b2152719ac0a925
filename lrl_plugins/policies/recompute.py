"""Gradient checkpointing of transformers models in both modes: blocks keep their input and run again backwards."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer


class Recompute:
    """Stands in for the forward of one block: keeps its input alone and computes the rest again in the backward pass.

    The library's own switch works in train mode only, but the loss of drawn episodes is computed in eval mode.

    Args:
        block: The block whose forward this is.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the block says; `kwargs` are the block's own arguments, which differ from model to model."""
        forward = type(self.block).forward
        writes = any(isinstance(given, Cache) for given in (*args, *kwargs.values()))  # a second time would be wrong
        if writes or not torch.is_grad_enabled():
            return forward(self.block, *args, **kwargs)
        return checkpoint(forward, self.block, *args, use_reentrant=False, **kwargs)


def recompute_blocks(model: nn.Module) -> int:
    """Let every block of a model be recomputed; returns how many it has. Names of weights stay."""
    # Only what the library marks: a block with running statistics, say, may not run twice.
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for block in blocks:
        block.forward = Recompute(block)
    return len(blocks)

"""What policies with recurrent cells share."""

from contextlib import AbstractContextManager

import torch
from torch import nn


def differentiable(policy: nn.Module) -> AbstractContextManager[None]:
    """cuDNN refuses the backward pass of cells in eval mode, in which drawn episodes are read.

    Args:
        policy: Whose mode it is.
    """
    return torch.backends.cudnn.flags(enabled=policy.training or not torch.is_grad_enabled())

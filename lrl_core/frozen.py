"""A module that moves with the model, never trains and never enters a checkpoint."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Frozen(nn.Module):
    """Holds another module still: no gradients, always in eval mode, absent from checkpoints and optimisers.

    For reference policies, frozen translators and scorers: whatever can be rebuilt from the recipe.

    Args:
        module: What to freeze.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # In a tuple, PyTorch does not register it: no parameters, no state dict, no mode changes reach it.
        self._held = (module.requires_grad_(False).eval(),)

    @property
    def module(self) -> nn.Module:
        """What is held still."""
        return self._held[0]

    def forward(self, *args: Any) -> Any:
        """What the module says."""
        return self.module(*args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        self.module._apply(fn, recurse)
        return super()._apply(fn, recurse)

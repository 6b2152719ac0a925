"""Work in another thread under this thread's modes."""

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def as_here(call: Callable[[], Result], device: torch.device) -> Callable[[], Result]:
    """The same call under this thread's modes of gradients and precision, which a new thread does not inherit."""
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    kind = device.type
    mixed, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def wrapped() -> Result:
        if kind == "cuda":
            torch.cuda.set_device(device)
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), torch.autocast(kind, dtype, mixed):
            return call()

    return wrapped

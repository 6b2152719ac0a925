"""Reading a policy without dropout, or with nothing but its dropout switched on; its own mode comes back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from lrl_core.interfaces import Policy
from lrl_core.types import Rollout


def dropouts(policy: Policy) -> list[nn.Module]:
    """The policy's dropout modules whose share is above 0."""
    return [module for module in policy.modules() if isinstance(module, _DropoutNd) and module.p > 0]


@contextmanager
def only(policy: Policy, training: list[nn.Module]) -> Iterator[None]:
    """Inside, exactly these modules are in train mode; batch norms and the like keep still.

    Args:
        policy: Whose modules.
        training: Those that shall be in train mode.
    """
    before = [(module, module.training) for module in policy.modules()]
    try:
        policy.eval()
        for module in training:
            module.train()
        yield
    finally:
        for module, mode in before:
            module.training = mode


@torch.no_grad()
def with_own_logprobs(policy: Policy, rollout: Rollout) -> Rollout:
    """The same episodes with the policy's own log-probabilities, read without dropout: what a loss would recompute."""
    with only(policy, []):
        return replace(rollout, logprobs=policy(rollout).logprobs)

"""Weights that were saved before a policy got its adapter or its value head can be loaded all the same."""

from typing import Any

from torch import nn

ADAPTED, ADDITION = ".base_layer.", ".lora_"
"""How peft names a layer under an adapter, and its additions."""


def accept_older_weights(policy: nn.Module) -> None:
    """Let the policy load a state dict without low-rank additions or value head: these keep what they start with.

    A policy trained by maximum likelihood is then a start for one that trains an adapter or has a value head.
    """
    policy.register_load_state_dict_pre_hook(_fill_in)


def _fill_in(policy: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, now in policy.state_dict().items():
        if prefix + name in state:
            continue
        plain = prefix + name.replace(ADAPTED, ".")
        if plain in state:
            state[prefix + name] = state.pop(plain)
        elif ADDITION in name or name.startswith("values."):
            state[prefix + name] = now

"""The weights a preference model starts from: an earlier preference model, or only its trunk."""

from typing import Any

import torch
from torch import Tensor, nn

_EXTRA = "_extra_state"
_TRUNKS = ("learner.encoder.", "policy.")
"""Where trunks without a preference head are looked for first: a masked-language-model warm-up, a policy."""


def take_weights(module: nn.Module, trunk: nn.Module, path: str, who: str) -> dict[str, Any] | None:
    """Load the weights of a checkpoint's part that fits; returns its extra state, None where only the trunk fitted.

    Args:
        module: The preference model, loaded whole where a part of the checkpoint has all its weights.
        trunk: Its trunk, loaded by itself where none has.
        path: A checkpoint of a run.
        who: Name of the plugin, for errors.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{who}: start_from is {path!r}, which cannot be read ({type(error).__name__}: {error}); expected a "
            "checkpoint of a run. Correct the path."
        ) from error
    whole = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    fitting = _prefixes(saved, whole)
    if len(fitting) > 1:
        raise ValueError(
            f"{who}: start_from is {path!r}, in which {', '.join(fitting)} all fit; expected one preference model of "
            "this shape. Name a checkpoint that holds one."
        )
    if fitting:
        part = _part(saved, fitting[0], whole)
        module.load_state_dict(part | {_EXTRA: {}})
        return dict(saved.get(fitting[0] + _EXTRA) or {})
    own = trunk.state_dict()
    trunks = sorted(_prefixes(saved, own), key=lambda prefix: (not prefix.startswith(_TRUNKS), prefix))
    if not trunks:
        raise ValueError(
            f"{who}: start_from is {path!r}, no part of which has the {len(whole)} weights of this model or the "
            f"{len(own)} of its trunk, in name and shape; expected a run that trained a Preference, a MaskedLM or a "
            "policy with the same model and tokenizer. Correct the path, or model and tokenizer."
        )
    trunk.load_state_dict(_part(saved, trunks[0], own))
    return None


def _prefixes(saved: dict[str, Any], own: dict[str, Tensor]) -> list[str]:
    """What stands before the names of every part that has all of these weights."""
    first = next(iter(own))
    candidates = [name.removesuffix(first) for name in saved if name == first or name.endswith("." + first)]
    return [prefix for prefix in candidates if all(_same(saved.get(prefix + name), own[name]) for name in own)]


def _same(saved: Any, own: Tensor) -> bool:
    return isinstance(saved, Tensor) and saved.shape == own.shape


def _part(saved: dict[str, Any], prefix: str, own: dict[str, Tensor]) -> dict[str, Any]:
    return {name: saved[prefix + name] for name in own}

"""What a policy sees of a picture: given region features, or the states of a vision encoder."""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from lrl_core.types import Prompts
from lrl_plugins.policies.layout import trimmed_mask
from lrl_plugins.policies.loading import Source, load

Feature = Literal["pixels", "regions"]
"""What the task gives of a picture."""


def load_encoder(source: Source, freeze: bool) -> PreTrainedModel:
    """A vision encoder whose last states are read, in eval mode.

    Args:
        source: Its path or config entries.
        freeze: Whether its weights keep still, which spends no memory on their gradients.
    """
    encoder = load(AutoModel, *source, {}, {}).eval()
    if any(name.startswith("pooler.") for name, _ in encoder.named_parameters()):
        encoder.pooler = None  # its output is not used, and unused weights upset distributed training
    return encoder.requires_grad_(not freeze)


def look(prompts: Prompts, sees: Feature, who: str) -> Tensor:
    """The feature of the prompts that a policy sees.

    Args:
        prompts: Pictures, and text perhaps.
        sees: Name of the feature.
        who: Name of the policy, for the error.
    """
    if sees not in prompts.features:
        advice = {"pixels": "Give the data pixels, or set encoder: null", "regions": "Name an encoder"}[sees]
        raise ValueError(
            f"{who}: got prompts with features {sorted(prompts.features)}; expected {sees!r}. "
            f"{advice}, so that model and data fit."
        )
    return prompts.features[sees]


def see(
    prompts: Prompts, encoder: PreTrainedModel | None, who: str
) -> tuple[Float[Tensor, "G R D"], Bool[Tensor, "G R"] | None]:
    """Regions of each picture as given or as encoded, and which of them are real (None: all).

    Args:
        prompts: Distinct pictures: each is encoded once.
        encoder: Reads features["pixels"]; None: features["regions"] are given, with "region_lengths" if unequal.
        who: Name of the policy, for the error.
    """
    if encoder is not None:
        return _states(encoder, look(prompts, "pixels", who)), None
    regions = look(prompts, "regions", who)
    if "region_lengths" not in prompts.features:
        return regions, None
    longest, mask = trimmed_mask(prompts.features["region_lengths"])
    return regions[:, :longest], mask


def _states(encoder: PreTrainedModel, pixels: Float[Tensor, "G C H W"]) -> Float[Tensor, "G R D"]:
    states = encoder(pixel_values=pixels).last_hidden_state
    return states if states.ndim == 3 else states.flatten(2).transpose(1, 2).contiguous()  # a convolutional map

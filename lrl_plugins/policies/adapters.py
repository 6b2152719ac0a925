"""Low-rank additions to a transformers model (LoRA), through peft, and how to read without them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lrl_plugins.policies.trained import Trained


def add_lora(model: PreTrainedModel, trained: Trained, who: str) -> None:
    """Freeze a model and put trainable low-rank additions beside its linear layers (Hu 2022); at first they add 0.

    No dropout: the importance ratio of a fresh rollout is then 1 in every mode.

    Args:
        model: Changed in place.
        trained: Rank, alpha and targets.
        who: Name of the policy, for errors.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise ImportError(
            f"{who}: got train.parts='lora' without the package peft; expected it installed, because it makes the "
            "low-rank additions. Install peft, or set train.parts: top."
        ) from error
    config = LoraConfig(
        r=trained.rank,
        lora_alpha=trained.alpha,  # type: ignore[arg-type]  # peft divides it by the rank: any number will do
        lora_dropout=0.0,
        target_modules=trained.targets or "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ValueError(
            f"{who}: peft refuses train.targets={trained.targets!r} for {type(model).__name__}: {error} Expected ends "
            f"of the names of its layers. Set targets: null for every linear layer. Some names: {_linear(model)}."
        ) from error
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise ValueError(
            f"{who}: train.targets={trained.targets!r} names the output matrix; expected other layers, because the "
            "loss reads that matrix as it is. Leave it out."
        )


def _linear(model: nn.Module) -> list[str]:
    layers = (nn.Linear, Conv1D)
    return sorted({name.rsplit(".")[-1] for name, module in model.named_modules() if isinstance(module, layers)})


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The model reads as its frozen weights alone while inside."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    # peft switches gradients with the adapters; a frozen copy must stay frozen.
    learns = {parameter: parameter.requires_grad for layer in layers for parameter in layer.parameters()}
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, learnt in learns.items():
            parameter.requires_grad_(learnt)

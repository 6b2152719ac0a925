"""The blocks of a transformers model, and how a policy on top of one learns."""

from collections.abc import Iterable

from torch import nn

from lrl_plugins.policies.adapters import add_lora
from lrl_plugins.policies.reader import Reader
from lrl_plugins.policies.recompute import recompute_blocks
from lrl_plugins.policies.trained import Trained, freeze_the_rest


def blocks_of(part: nn.Module, who: str) -> list[nn.Module]:
    """The stacked blocks of a decoder, from the input to the output: its list of modules with the most weights."""
    lists = [module for module in part.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(
            f"{who}: got train.parts='top', but {type(part).__name__} has no list of blocks. "
            "Expected a model built of blocks. Set train.parts: head or all."
        )
    return list(max(lists, key=_size))


def _size(blocks: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for block in blocks for parameter in block.parameters())


def prepare(policy: nn.Module, reader: Reader, trained: Trained, gradient_checkpointing: bool) -> None:
    """Let the chosen weights of a policy learn, and its decoder compute its blocks twice where that is wished.

    Args:
        policy: Whose weights are meant; what is not in the reader learns with `all` alone.
        reader: Its language model.
        trained: Which weights learn.
        gradient_checkpointing: Whether blocks are recomputed in the backward pass.
    """
    if trained.parts == "lora":
        policy.requires_grad_(False)
        add_lora(reader.model, trained, reader.who)
    else:
        head = list(reader.model.get_output_embeddings().parameters())
        stack = blocks_of(reader.part, reader.who) if trained.parts == "top" else []
        freeze_the_rest(policy, trained, head, [list(block.parameters()) for block in stack], reader.who)
    if gradient_checkpointing and not recompute_blocks(reader.model):
        raise ValueError(
            f"{reader.who}: got gradient_checkpointing: true, but {type(reader.model).__name__} marks no block as one "
            "that can be computed twice. Set gradient_checkpointing: false, or choose another model."
        )

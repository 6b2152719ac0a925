"""Lines of unequal length below each other, as batches of `Prompts` hold them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def padded(lines: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """The lines, filled up on the right, and their lengths; flags stay flags.

    Args:
        lines: At least one.
        fill: What stands behind their ends.
    """
    kind = torch.bool if isinstance(fill, bool) else torch.long
    rows = pad_sequence([torch.tensor(line, dtype=kind) for line in lines], batch_first=True, padding_value=fill)
    return rows, torch.tensor([len(line) for line in lines])

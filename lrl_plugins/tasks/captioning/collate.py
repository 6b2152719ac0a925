"""Rows of captioned images, and how a list of them becomes `Prompts`."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrl_core.types import Prompts


@dataclass(frozen=True)
class Row:
    """One image with one of its captions to learn from."""

    id: str
    """The image."""
    group: int
    """Its number, unique over all splits."""
    caption: str
    """The caption to learn from."""
    target: tuple[int, ...]
    """Its tokens, EOS included."""
    references: tuple[str, ...]
    """All captions of the image."""
    pixels: Float[Tensor, "3 H W"] | None
    """Normalised; None where there are regions."""
    regions: Float[np.ndarray, "R D"] | None
    """Precomputed features; None where there are pixels."""


def collate(images: list[list[Row]], pad: int) -> Prompts:
    """A batch of rows, those of one image next to each other.

    Args:
        images: The rows of each image.
        pad: Token id that fills lines.
    """
    rows = [row for image in images for row in image]
    targets = [torch.tensor(row.target, dtype=torch.long) for row in rows]
    return Prompts(
        tokens=torch.zeros((len(rows), 0), dtype=torch.long),
        lengths=torch.zeros(len(rows), dtype=torch.long),
        group=torch.tensor([row.group for row in rows]),
        references=tuple(row.references for row in rows),
        targets=torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=pad),
        target_lengths=torch.tensor([len(target) for target in targets]),
        features=_features(rows),
        examples=tuple({"id": row.id, "caption": row.caption} for row in rows),
    )


def collator(pad: int) -> "partial[Prompts]":
    """`collate` for one tokenizer, in a form that loading processes can be handed."""
    return partial(collate, pad=pad)


def _features(rows: list[Row]) -> dict[str, Tensor]:
    pixels = [row.pixels for row in rows if row.pixels is not None]
    if pixels:
        return {"pixels": torch.stack(pixels)}
    regions = [torch.from_numpy(row.regions) for row in rows if row.regions is not None]
    sizes = {region.shape[1] for region in regions}
    if len(sizes) > 1:
        raise ValueError(
            f"Captioning: got features of {len(sizes)} widths ({', '.join(map(str, sorted(sizes)))}) in one batch "
            f"(images {', '.join(sorted({row.id for row in rows})[:3])} ...), expected one width. Extract them with "
            "one model, the feature axis last."
        )
    return {
        "regions": torch.nn.utils.rnn.pad_sequence(regions, batch_first=True),
        "region_lengths": torch.tensor([len(region) for region in regions]),
    }

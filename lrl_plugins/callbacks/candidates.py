"""Questions made of the episodes of a step: several different answers to one prompt, as a person sees them."""

import hashlib
import io
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lrl_core.preferences.reading import prompt_text
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Prompts, Rollout


@dataclass(frozen=True)
class Candidates:
    """One question: which of these answers is best?"""

    prompt: str
    """What was asked, as text; "" where the prompt is a picture."""
    texts: tuple[str, ...]
    """The answers, all different, at least two."""
    rows: tuple[int, ...]
    """Their rows in the rollout."""

    def key(self, seed: int | None, step: int) -> str:
        """Names the question, so that a step that is repeated after an interruption asks nothing twice.

        The texts are part of it: another run of the same seed may share the store, and has answers of its own.

        Args:
            seed: Of the run.
            step: Training steps before this one.
        """
        said = "\0".join((self.prompt, *self.texts))
        return f"{seed}/{step}/{hashlib.blake2b(said.encode(), digest_size=12).hexdigest()}"


def questions_of(rollout: Rollout, tokenizer: Tokenizer, count: int, candidates: int) -> list[Candidates]:
    """At most `count` questions, one per prompt, from the first prompts that got at least two different answers.

    Args:
        rollout: Episodes with texts, several per prompt.
        tokenizer: The task's, to read prompts that carry no text.
        count: Most questions.
        candidates: Episodes of a prompt that are looked at, its first ones.
    """
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(rollout.prompts.group.tolist()):
        groups.setdefault(group, []).append(row)
    questions: list[Candidates] = []
    for rows in groups.values():
        if len(questions) == count:
            break
        assert rollout.texts is not None
        different = {rollout.texts[row]: row for row in reversed(rows[:candidates])}  # the first row of a text stays
        if len(different) > 1:
            kept = tuple(sorted(different.values()))
            texts = tuple(rollout.texts[row] for row in kept)
            questions.append(Candidates(prompt_text(rollout.prompts, kept[0], tokenizer), texts, kept))
    return questions


def picture_of(prompts: Prompts, row: int) -> bytes | None:
    """The prompt's picture as PNG; None where it has none.

    Args:
        prompts: With `features["pixels"]` [B 3 H W]: bytes, or numbers as a network reads them.
        row: Which prompt.
    """
    if "pixels" not in prompts.features:
        return None
    levels = as_bytes(prompts.features["pixels"][row])
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).cpu().numpy()).save(file, format="PNG")
    return file.getvalue()


def as_bytes(pixels: Float[Tensor, "3 H W"] | UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 H W"]:
    """Levels of 0 to 255 for people to look at.

    Numbers within [0, 1] and those within [-1, 1] are read as such; what was normalised otherwise is stretched so that
    its darkest and its brightest are black and white.

    Args:
        pixels: Bytes, or numbers as a network reads them.
    """
    if pixels.dtype == torch.uint8:
        return pixels
    numbers = pixels.float()
    low, high = float(numbers.min()), float(numbers.max())
    if low >= -1 and high <= 1:
        low, high = (0.0, 1.0) if low >= 0 else (-1.0, 1.0)
    levels = (numbers - low) / max(high - low, 1e-6)
    return (levels * 255).round().to(torch.uint8)

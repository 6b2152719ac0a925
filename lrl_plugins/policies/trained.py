"""Which weights of a policy learn: one small description that every policy takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn


@dataclass(frozen=True)
class Trained:
    """Which weights learn; all others keep still, and so does everything computed from them alone.

    A value head learns in any case. Freshly drawn weights that are frozen here never become any good: name a
    pretrained model, or start from a policy that was trained whole.

    Args:
        parts: `all`: every weight. `head`: the output matrix and its bias alone (where the word vectors are tied to
            that matrix, they are the same weights and learn too). `top`: the last `top` blocks before the output, and
            the head. `lora`: a low-rank addition to frozen weights (Hu 2022), of transformers models only; needs the
            package peft.
        top: How many blocks learn with `parts: top`; norms between the last block and the head keep still.
        rank: Rank of the low-rank additions, >= 1.
        alpha: The additions are multiplied by alpha / rank.
        targets: Names of the layers that get an addition, the ends of their paths (q_proj, say); None means every
            linear layer but the output matrix.
    """

    parts: Literal["all", "head", "top", "lora"] = "all"
    top: int = 1
    rank: int = 8
    alpha: float = 16.0
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        expected = {
            "parts": ("one of 'all', 'head', 'top', 'lora'", self.parts in ("all", "head", "top", "lora")),
            "top": ("a number >= 1 (parts: head trains no block)", self.top >= 1),
            "rank": ("a number >= 1", self.rank >= 1),
            "alpha": ("a number > 0", self.alpha > 0),
            "targets": ("at least one name, or null", self.targets is None or len(self.targets) > 0),
        }
        for name, (wanted, holds) in expected.items():
            if not holds:
                raise ValueError(f"train.{name}: got {getattr(self, name)!r}; expected {wanted}. Change the recipe.")


EVERYTHING = Trained()
"""Every weight learns."""


def refuse_lora(trained: Trained, who: str) -> None:
    """For policies that peft cannot serve."""
    if trained.parts == "lora":
        raise ValueError(
            f"{who}: got train.parts='lora'; expected 'all', 'head' or 'top', because low-rank additions are made by "
            "peft for transformers models. Choose one of those, or CausalLM, Seq2SeqLM or ImageCaptioner."
        )


def freeze_the_rest(
    policy: nn.Module,
    trained: Trained,
    head: Sequence[nn.Parameter],
    blocks: Sequence[Sequence[nn.Parameter]],
    who: str,
) -> None:
    """Let only the named parts learn; call before a value head is added.

    Args:
        policy: Whose weights are meant.
        trained: Which of them learn: `all`, `head` or `top`.
        head: Weights of the output matrix.
        blocks: Weights of each block, from the input to the output; looked at for `top` alone.
        who: Name of the policy, for the error.
    """
    if trained.parts == "all":
        return
    chosen = list(head)
    if trained.parts == "top":
        if trained.top > len(blocks):
            raise ValueError(
                f"{who}: got train.top={trained.top}; expected at most {len(blocks)}, the number of its blocks. "
                "Lower it, or set train.parts: all."
            )
        chosen += [parameter for block in blocks[-trained.top :] for parameter in block]
    policy.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)

"""Lines whose tokens follow other tokens than the one before: a tree of branches, read in one pass.

A token sees the prompt, its ancestors and itself, and stands at the place that their number gives. Branches that share
a beginning share its reading (the tree attention of Miao et al. 2023, arXiv:2305.09781).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lrl_core.masks import length_mask
from lrl_plugins.policies.layout import Prefix


class Tree(NamedTuple):
    """Who comes before whom."""

    ancestors: Bool[Tensor, "B E E"]
    """True where the second token is an ancestor of the first, or the first itself."""
    depths: Int[Tensor, "B E"]
    """Number of ancestors of each token; 0 for those that follow the prompt."""


class TreeLine(NamedTuple):
    """Prefixes and trees as the model reads them: prefix, fill tokens, episode, fill tokens."""

    tokens: Int[Tensor, "B L"]
    """Fill tokens stand wherever nothing is to be read."""
    mask: Bool[Tensor, "B 1 L L"]
    """True where the first token looks at the second."""
    positions: Int[Tensor, "B L"]
    """Place of each token in its own branch."""
    before: Int[Tensor, "B T"]
    """Column of the token that each episode token follows."""

    def align(self, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B T D"]:
        """The state before each episode token: the one shift to the token before."""
        return hidden.gather(1, self.before[:, :, None].expand(-1, -1, hidden.shape[2]))


def checked(follows: Int[Tensor, "B T"], lengths: Int[Tensor, " B"], who: str) -> Int[Tensor, "B T"]:
    """The same with -1 behind the end of each episode; ValueError where a token follows itself or a later one.

    Args:
        follows: Which token of the line each token follows; -1 for the prompt.
        lengths: How many of the T tokens are real.
        who: Name of the policy, for the error.
    """
    steps = follows.shape[1]
    follows = follows.masked_fill(~length_mask(lengths, steps), -1)
    broken = (follows < -1) | (follows >= torch.arange(steps, device=follows.device))
    if bool(broken.any()):
        row, step = broken.nonzero()[0].tolist()
        raise ValueError(
            f"{who}: token {step} of row {row} follows token {int(follows[row, step])} of its line; expected -1 (the "
            "prompt) or a token that stands before it. Correct Rollout.follows."
        )
    return follows


def tree_of(follows: Int[Tensor, "B E"]) -> Tree:
    """Ancestors and depths, in log2(E) steps: each doubles how far back every token has looked.

    Args:
        follows: Which token each token follows, an earlier one; -1 for the prompt.
    """
    rows = torch.arange(len(follows), device=follows.device)[:, None]
    jump = torch.nn.functional.pad(follows + 1, (1, 0))  # the prompt is node 0 and follows itself
    nodes = jump.shape[1]
    reach = torch.eye(nodes, dtype=torch.bool, device=follows.device).expand(len(follows), -1, -1)
    for _ in range((nodes - 1).bit_length()):
        reach, jump = reach | reach[rows, jump], jump.gather(1, jump)
    ancestors = reach[:, 1:, 1:]
    return Tree(ancestors, ancestors.sum(2) - 1)


def lay_branches(
    prefix: Prefix, episode: Int[Tensor, "B T"], lengths: Int[Tensor, " B"], follows: Int[Tensor, "B T"]
) -> TreeLine:
    """Put episodes behind their prefixes; only the mask and the positions say who comes before whom.

    Args:
        prefix: What is read first.
        episode: Episode tokens; the last column is not read, since nothing follows it.
        lengths: How many of them are real.
        follows: Which token of the episode each one follows, as `checked` gives it.
    """
    width, count = int(prefix.lengths.max()), episode.shape[1] - 1
    fill = prefix.tokens[0, 0]  # never looked at, but an id that the model knows: a row's first token is real
    read = episode[:, :count].masked_fill(~length_mask(lengths, count), fill)
    real = length_mask(prefix.lengths, width)
    start = prefix.tokens[:, :width].masked_fill(~real, fill)
    tree = tree_of(follows[:, :count])
    own = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
    above = torch.cat([own & real[:, None], own.new_zeros(len(real), width, count)], 2)  # the prompt sees no episode
    below = torch.cat([real[:, None].expand(-1, count, -1), tree.ancestors], 2)
    columns = torch.arange(width, device=real.device).expand(len(real), -1)
    return TreeLine(
        torch.cat([start, read], 1),
        torch.cat([above, below], 1)[:, None],
        torch.cat([columns, prefix.lengths[:, None] + tree.depths], 1),
        torch.where(follows < 0, prefix.lengths[:, None] - 1, width + follows),
    )


@contextmanager
def placed(table: nn.Module, positions: Int[Tensor, "B L"]) -> Iterator[None]:
    """Inside, a decoder that numbers tokens by their column (BART's, Marian's) takes these places instead.

    Args:
        table: Its position embedding, whose forward takes `position_ids`.
        positions: Place of each token that is read.
    """

    def ask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"position_ids": positions.flatten()}

    def answer(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.view(*positions.shape, -1)

    handles = [table.register_forward_pre_hook(ask, with_kwargs=True), table.register_forward_hook(answer)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

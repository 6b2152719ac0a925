"""How a language model reads beginnings of episodes: in one tree each or line by line, within a budget of tokens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrl_core.sampling import Sampling
from lrl_core.types import PolicyOutput, Rollout
from lrl_plugins.rewards.discriminator_lines import parts_of
from lrl_plugins.rewards.lm_posterior_lines import Said, added_up, ended, rows_of_beginnings, spoken, tree

Ask = Callable[[PolicyOutput], tuple[Tensor, ...]]
"""What is wanted of a reading: one number per token each."""
Reads = Callable[[Rollout, Ask], tuple[Tensor, ...]]
"""Reads lines and says of them what is asked."""


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """In eval mode while inside, in the mode it was in after."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def after_each(
    said: Said, reads: Reads, branches: bool, eos: int, bans: Sampling
) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B M K"]]:
    """Log-probabilities of an episode's words, and of what follows each beginning: the stop (K = 1), or K tails.

    Args:
        said: Episodes; where they have tails, those are what follows.
        reads: The language model.
        branches: Whether it reads trees.
        eos: The end token.
        bans: What episodes may not say.
    """
    if said.kinds == 0:
        words, stops = reads(ended(said, eos, bans), lambda output: (output.logprobs, output.log_stop))
        return words[:, :-1], stops[:, :, None]
    sheet = tree(said) if branches else rows_of_beginnings(said)
    (logprobs,) = reads(sheet.rollout, partial(spoken, bans=bans))
    return added_up(sheet, logprobs, said)


def within(reads: Reads, token_budget: int | None) -> Reads:
    """The same reading, of parts of at most so many padded tokens; lines of like length together.

    Args:
        reads: Reads any number of lines at once.
        token_budget: Of prompt and line; None reads all at once.
    """
    return reads if token_budget is None else partial(_in_parts, reads, token_budget)


def _in_parts(reads: Reads, token_budget: int, rollout: Rollout, ask: Ask) -> tuple[Tensor, ...]:
    parts = parts_of(rollout.lengths + rollout.prompts.lengths, token_budget)
    answers = [reads(rollout.select(rows).trimmed(), ask) for rows in parts]
    wide, back = rollout.tokens.shape[1], torch.cat(parts).argsort()
    return tuple(
        torch.cat([nn.functional.pad(part, (0, wide - part.shape[1])) for part in some])[back]
        for some in zip(*answers, strict=True)
    )

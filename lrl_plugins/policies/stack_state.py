"""The state of an episode whose words can be taken back: a stack of what is left, and who can see what.

To take a word back, the token before it is read once more at its own place, and neither the deleted token nor the old
copy is ever looked at again (Cundy and Ermon 2023, arXiv:2306.05426, section 3.3): keys and values stay where they are.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from lrl_core.interfaces import State
from lrl_core.tokenizer import Tokenizer
from lrl_plugins.policies.transformers_state import CacheState


@dataclass
class StackState(State):
    """Keys and values of everything read so far, and which of it is left."""

    inner: CacheState
    """Keys and values; its mask hides what was taken back."""
    columns: Int[Tensor, "B K"]
    """Column of the last prefix token, then of each word that is left; what stands behind them is of no use."""
    words: Int[Tensor, "B K"]
    """The tokens in those columns."""
    height: Int[Tensor, " B"]
    """How many words of the episode are left."""
    first: Int[Tensor, " B"]
    """Place of the last prefix token."""

    @classmethod
    def of(cls, inner: CacheState, column: Int[Tensor, " B"] | int, word: Int[Tensor, " B"], place: Tensor) -> State:
        """The state after the prefixes.

        Args:
            inner: Keys and values of the prefixes.
            column: Of the last prefix token.
            word: The last prefix token.
            place: Its place in the row.
        """
        mask = inner.mask
        if mask is None:
            mask = torch.ones(len(word), inner.columns, dtype=torch.bool, device=word.device)
        column = torch.as_tensor(column, device=word.device).expand(len(word))
        inner = replace(inner, mask=mask)
        return cls(inner, column[:, None], word[:, None], torch.zeros_like(word), place)

    def select(self, rows: Int[Tensor, " N"]) -> "StackState":
        inner = self.inner.select(rows)
        return StackState(inner, self.columns[rows], self.words[rows], self.height[rows], self.first[rows])

    def after(self, tokens: Int[Tensor, " B"], backspace: int) -> tuple[Int[Tensor, " B"], "StackState"]:
        """What each row reads next, and the state in which it reads that.

        Args:
            tokens: The next token of each row.
            backspace: Which of them takes a word back; where none is left, it does nothing.
        """
        assert self.inner.mask is not None
        back = tokens == backspace
        height = torch.where(back, (self.height - 1).clamp(min=0), self.height + 1)
        gone = self.columns.gather(1, torch.stack([self.height, height.clamp(max=self.columns.shape[1] - 1)], 1))
        hidden = torch.zeros_like(self.inner.mask).scatter(1, gone, True) & back[:, None]
        words, columns = (torch.nn.functional.pad(part, (0, 1)) for part in (self.words, self.columns))
        at = height[:, None]
        read = torch.where(back, words.gather(1, at)[:, 0], tokens)
        inner = replace(self.inner, mask=self.inner.mask & ~hidden, position=self.first + height)
        columns = columns.scatter(1, at, self.inner.columns)
        return read, StackState(inner, columns, words.scatter(1, at, read[:, None]), height, self.first)


def refuse_backspace(tokenizer: Tokenizer, who: str, why: str) -> None:
    """For policies that cannot go back to what they knew before a word.

    Args:
        tokenizer: The task's.
        who: Name of the policy, for the error.
        why: What stands in the way.
    """
    if tokenizer.backspace is not None:
        raise ValueError(
            f"{who}: {type(tokenizer).__name__} has a backspace (token {tokenizer.backspace}), but {why}; expected a "
            "policy that can take a word back. Use CausalLM with a model such as gpt2 or llama, or Seq2SeqLM with "
            "marian or bart, or leave the backspace out of the tokenizer."
        )

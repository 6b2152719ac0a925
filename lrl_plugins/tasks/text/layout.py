"""How a prompt is worded and cut to length."""

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lrl_core.tokenizer import Tokenizer
from lrl_plugins.tasks.text.sources import Example

Side: TypeAlias = Literal["left", "right"]
_PIECE = re.compile(r"\s*\S+\s*$|\s*\S+")


@dataclass(frozen=True)
class Layout:
    """What a prompt's tokens are made of."""

    template: str
    """Text with `{prompt}`, and columns of the row in braces, in their places."""
    max_length: int
    """Most tokens of a prompt."""
    truncation: Side
    """Where words of a longer prompt are left out: the template's own words stay."""

    def tokens(self, example: Example, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The tokens of a prompt, at most `max_length` of them."""
        whole = tokenizer.encode(self.fill(example, example.prompt))
        if len(whole) <= self.max_length:
            return tuple(whole)
        pieces = _PIECE.findall(example.prompt)
        pieces = pieces if len(pieces) > 1 else list(example.prompt)  # scripts without spaces
        fits, too_many = 0, len(pieces)
        best = tokenizer.encode(self.fill(example, ""))
        if len(best) > self.max_length:
            raise ValueError(
                f"template: got {self.template!r}, which has {len(best)} tokens of its own for {example.id}, expected "
                f"at most max_prompt_length {self.max_length}. Shorten it or raise max_prompt_length."
            )
        while fits + 1 < too_many:
            middle = (fits + too_many) // 2
            kept = pieces[:middle] if self.truncation == "right" else pieces[-middle:]
            cut = tokenizer.encode(self.fill(example, "".join(kept).strip()))
            if len(cut) <= self.max_length:
                fits, best = middle, cut
            else:
                too_many = middle
        return tuple(best)

    def fill(self, example: Example, prompt: str) -> str:
        """The template with this prompt and the example's columns in it."""
        values: dict[str, Any] = {**example.columns, "prompt": prompt}
        try:
            return self.template.format_map(values)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"template: got {self.template!r}, which does not fit example {example.id} ({type(error).__name__}: "
                f"{error}), expected {{prompt}} or columns of the row in braces: {', '.join(values)}. Correct it; a "
                "brace of the text itself is written twice."
            ) from error

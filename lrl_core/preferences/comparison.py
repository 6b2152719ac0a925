"""Which of several answers to one prompt somebody likes better: what preference models learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

from lrl_core.types import Prompts

TOKENS_PER_WORD = 1.3
"""What a word between spaces counts against a token budget; tokenizers differ, and the texts are not tokenised yet."""


@dataclass(frozen=True)
class Comparison:
    """Two or more answers to one prompt, and how somebody ranked them."""

    prompt: str
    """What was asked."""
    candidates: tuple[str, ...]
    """The answers."""
    ranks: tuple[int, ...]
    """Of each answer, 0 the best; equal numbers are a tie. The best of k: 0 for the chosen one, 1 for all others."""
    id: str = ""
    """Names it in logs and errors; "" where it has no name."""

    def __post_init__(self) -> None:
        if len(self.candidates) != len(self.ranks) or len(self.candidates) < 2 or min(self.ranks) < 0:
            raise ValueError(
                f"Comparison {self.id or self.prompt[:40]!r}: got {len(self.candidates)} candidates and the ranks "
                f"{list(self.ranks)}; expected at least two candidates and one rank >= 0 for each. Correct the row."
            )

    @property
    def words(self) -> int:
        """About how many words a model reads that judges all candidates."""
        asked = len(self.prompt.split())
        return sum(asked + len(candidate.split()) for candidate in self.candidates)


@dataclass(frozen=True)
class Comparisons:
    """Several comparisons, to be learnt from in one update."""

    items: tuple[Comparison, ...]
    """The comparisons."""

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def of(cls, prompts: Prompts) -> "Comparisons":
        """What a batch of ranked answers says.

        Args:
            prompts: One row per candidate, the rows of a group together; `features["rank"]` [B] (0 the best), the
                candidate as the row's only reference, and `examples` with the columns prompt and id.
        """
        if "rank" not in prompts.features or prompts.references is None or not prompts.examples:
            raise ValueError(
                f"Comparisons: got prompts with the features {sorted(prompts.features)}; expected `rank`, a reference "
                "and an example in every row. Use a task of ranked answers, such as Preferences with answers: ranked."
            )
        groups: dict[int, list[int]] = {}
        for row, group in enumerate(prompts.group.tolist()):
            groups.setdefault(group, []).append(row)
        ranks = prompts.features["rank"].tolist()
        return cls(tuple(_comparison(prompts, ranks, rows) for rows in groups.values()))

    def split(self, token_budget: int | None) -> list["Comparisons"]:
        """Parts of about `token_budget` tokens (None: one part); a comparison is never cut apart."""
        if token_budget is None or not self.items:
            return [self]
        parts: list[list[Comparison]] = []
        read = 0.0
        for item in sorted(self.items, key=lambda item: item.words):
            read += item.words * TOKENS_PER_WORD
            if not parts or read > token_budget:
                parts.append([])
                read = item.words * TOKENS_PER_WORD
            parts[-1].append(item)
        return [Comparisons(tuple(part)) for part in parts]


def _comparison(prompts: Prompts, ranks: Sequence[int], rows: Sequence[int]) -> Comparison:
    assert prompts.references is not None
    example = prompts.examples[rows[0]]
    return Comparison(
        prompt=example["prompt"],
        candidates=tuple(prompts.references[row][0] for row in rows),
        ranks=tuple(int(ranks[row]) for row in rows),
        id=str(example.get("id", "")),
    )

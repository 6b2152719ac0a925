"""Where rewards that check answers take the right ones from: the references, or a column of the example."""

from collections.abc import Iterable
from typing import Any

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.registry import suggest
from lrl_core.types import Rollout
from lrl_plugins.rewards.texts import texts_and_references, texts_of


def texts_and_golds(reward: Reward, rollout: Rollout, column: str | None) -> Iterable[tuple[str, tuple[str, ...]]]:
    """For every episode its text and the right answers as text; () where its example has none.

    Args:
        reward: Who asks, for error messages.
        rollout: The episodes.
        column: Column of the examples with one answer or a list of them; None takes the references.
    """
    if column is None:
        return ((text, references) for text, _, references in texts_and_references(reward, rollout))
    if not rollout.prompts.examples:
        raise ValueError(
            f"{type(reward).__name__} got prompts without examples; expected rows with the column {column!r}. "
            "Use a task that passes its rows on (Prompts.examples), or set column: null to take the references."
        )
    golds = (_as_texts(example.get(column)) for example in rollout.prompts.examples)
    return zip(texts_of(reward, rollout), golds, strict=True)


def check_column(reward: Reward, facts: TaskFacts, column: str | None) -> None:
    """Refuse a column that no example of the task has, when the recipe is read.

    Args:
        reward: Who asks, for the error message.
        facts: What the task knows.
        column: The column; None where none is asked for.
    """
    names = {name for example in facts.example.examples for name in example}
    if column is not None and names and column not in names:
        listed = ", ".join(sorted(names))
        raise ValueError(
            f"{type(reward).__name__}: column is {column!r}; expected one of the task's columns {listed}. "
            f"{suggest(column, names)}Correct column; a row without an answer carries null in it."
        )


def _as_texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(str(item) for item in value if item is not None) if isinstance(value, list | tuple) else (str(value),)

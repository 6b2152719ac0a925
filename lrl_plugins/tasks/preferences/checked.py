"""Comparisons read and checked when the recipe is read: what would otherwise stop a run hours later."""

from lrl_plugins.tasks.preferences.rows import Answers
from lrl_plugins.tasks.preferences.sources import PreferenceSource, Ranked


def checked_comparisons(source: PreferenceSource, answers: Answers) -> dict[str, list[Ranked]]:
    """The comparisons of a source by split.

    Args:
        source: Where they come from.
        answers: Which candidates are going to be shown.
    """
    who = type(source).__name__
    splits = {split: items for split, items in source.splits().items() if items or split != "test"}
    for split in ("train", "val"):
        if not splits.get(split):
            raise ValueError(
                f"{who}: got no prompts in split {split!r}, expected at least one. Name a file that has some, or raise "
                "held_out."
            )
    for split, items in splits.items():
        _refuse_double_ids(who, split, items)
        _refuse_few_candidates(who, split, items, 2 if answers == "ranked" else 1)
    return splits


def _refuse_double_ids(who: str, split: str, items: list[Ranked]) -> None:
    ids = {item.id for item in items}
    if len(ids) < len(items):
        raise ValueError(
            f"{who}: got {len(items)} prompts with {len(ids)} different ids in split {split!r}, expected an id of its "
            "own for each. Correct the file or id_field."
        )


def _refuse_few_candidates(who: str, split: str, items: list[Ranked], least: int) -> None:
    few = [item for item in items if len(item.candidates) < least]
    if few:
        remedy = "Take them out, or set answers: best, which needs no comparison." if least > 1 else "Take them out."
        raise ValueError(
            f"{who}: got {len(few)} of {len(items)} prompts with fewer than {least} candidate answers in split "
            f"{split!r} (first: {few[0].id}), expected at least {least}. {remedy}"
        )

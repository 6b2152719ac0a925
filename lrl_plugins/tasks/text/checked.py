"""Examples read and checked when the recipe is read: what would otherwise stop a run hours later."""

from collections.abc import Callable

from lrl_plugins.tasks.text.sources import Example, TextSource


def checked_splits(source: TextSource, prepare: Callable[[Example], Example]) -> dict[str, list[Example]]:
    """The examples of a source by split.

    Args:
        source: Where they come from.
        prepare: What a task makes of an example before anything else sees it.
    """
    loaded = source.splits().items()
    splits = {split: list(map(prepare, examples)) for split, examples in loaded if examples or split != "test"}
    for split in ("train", "val"):
        if not splits.get(split):
            raise ValueError(
                f"{type(source).__name__}: got no examples in split {split!r}, expected at least one. Name a "
                "file that has some, or correct the names of the splits."
            )
    for split, examples in splits.items():
        _check(source, split, examples)
    return splits


def _check(source: TextSource, split: str, examples: list[Example]) -> None:
    who = f"{type(source).__name__}: got"
    ids = {example.id for example in examples}
    if len(ids) < len(examples):
        raise ValueError(
            f"{who} {len(examples)} examples with {len(ids)} different ids in split {split!r}, expected an id of "
            "its own for each. Correct the file or id_field."
        )
    silent = [example.id for example in examples if not example.references]
    if silent and len(silent) < len(examples):
        raise ValueError(
            f"{who} {len(silent)} of {len(examples)} examples without an answer in split {split!r} (first: "
            f"{', '.join(silent[:3])}), expected answers to all or to none. Take them out or complete them."
        )

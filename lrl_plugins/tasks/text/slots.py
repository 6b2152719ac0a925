"""Tables written as `name[value], ...`: reading them, hiding their names, and asking which values a text mentions."""

import re
from dataclasses import replace

from lrl_core.tokenizer import words
from lrl_plugins.tasks.text.sources import Example

_SLOT = re.compile(r"([^\s,\[\]][^,\[\]]*)\[([^\]]*)\]")
_YES_NO = {"yes", "no", "true", "false"}


def slots_of(prompt: str) -> list[tuple[str, str]]:
    """Names and values of a table written as text, in order; [] where it is none."""
    return [(name.strip(), value.strip()) for name, value in _SLOT.findall(prompt)]


def slot_coverage(prompt: str, said: str) -> float | None:
    """Share of a prompt's slots whose value is mentioned, word for word; None without slots.

    Of a slot that says yes or no, its name counts as mentioned by its words: familyFriendly by "family friendly".

    Args:
        prompt: The table as text.
        said: Its description.
    """
    wanted = [_plain(name if value.lower() in _YES_NO else value) for name, value in slots_of(prompt)]
    text = _plain(said)
    return sum(value in text for value in wanted) / len(wanted) if wanted else None


def placeholder(slot: str) -> str:
    """The one word that stands for a slot's value: xname, xnear."""
    return "x" + "".join(words(slot)).replace("-", "")


def with_placeholders(example: Example, slots: list[str]) -> Example:
    """The example with these slots' values replaced by placeholders, in prompt and references alike.

    Longer values are replaced first, so that a value within another one does not break it.

    Args:
        example: A table and its descriptions.
        slots: Names of the slots.
    """
    known = [(name, value) for name, value in slots_of(example.prompt) if name in slots and value]
    prompt, references = example.prompt, example.references
    for name, value in sorted(known, key=lambda slot: -len(slot[1])):
        prompt = prompt.replace(f"{name}[{value}]", f"{name}[{placeholder(name)}]")
        spoken = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)", re.IGNORECASE)
        references = tuple(spoken.sub(placeholder(name), text) for text in references)
    return replace(example, prompt=prompt, references=references)


def _plain(text: str) -> str:
    """Words between single spaces: camelCase, hyphens and punctuation make no difference."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|[-_]", " ", text)
    return f" {' '.join(words(apart))} "

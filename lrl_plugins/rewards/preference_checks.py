"""What a preference model refuses when the recipe is read."""

from typing import NoReturn


def check_numbers(least_one: dict[str, int], held_out: float, clip: float | None, centring: float) -> None:
    """Raise ValueError where a number cannot be meant.

    Args:
        least_one: Arguments that count something, by name.
        held_out: Share of the questions that are held out.
        clip: Limit on the scores.
        centring: Weight of the regulariser.
    """
    for name, value in least_one.items():
        if value < 1:
            raise ValueError(f"Preference: {name} is {value}; expected at least 1. Correct the recipe.")
    if not 0 <= held_out < 1:
        raise ValueError(f"Preference: held_out is {held_out}; expected a share in [0, 1). 0.1 is usual.")
    if clip is not None and clip <= 0:
        raise ValueError(f"Preference: clip is {clip}; expected a number > 0, or null for no limit.")
    if centring < 0:
        raise ValueError(f"Preference: centring is {centring}; expected a weight >= 0. 0.01 is usual.")


def refuse_ignorance(labels: str | None, start_from: str | None) -> NoReturn:
    """Raise ValueError because a model beside a policy has learnt nothing, and never would.

    Args:
        labels: As the recipe says.
        start_from: As the recipe says.
    """
    raise ValueError(
        f"Preference: got labels {labels!r} and start_from {start_from!r}, so that it has learnt nothing and never "
        "would; expected labels to learn from, or start_from with a run that trained a Preference. Name one of them."
    )

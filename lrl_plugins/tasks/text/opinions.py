"""Made-up sentences about films: what happens in them (objective), and what somebody thinks of them (subjective)."""

import random

from lrl_plugins.tasks.text.made_up import PEOPLE, PLACES, THINGS, MadeUp
from lrl_plugins.tasks.text.sources import Example


class MadeUpOpinions(MadeUp):
    """Sentences of plots and of reviews, half of each; the answer is `objective` or `subjective`.

    Args:
        train: Training examples.
        val: Validation examples.
        test: Test examples; no sentence is in two splits.
        seed: Other seeds give other examples.
    """

    EVENTS = ("discovers", "steals", "finds", "loses", "sells", "hides", "buries")
    GOODS = ("charming", "moving", "clever", "beautiful", "funny", "brilliant")
    BADS = ("dull", "tedious", "silly", "clumsy", "predictable", "lifeless")
    PARTS = ("story", "script", "acting", "music", "ending", "camera work", "dialogue", "first half")

    def __init__(self, train: int = 2000, val: int = 200, test: int = 200, seed: int = 0) -> None:
        super().__init__(train, val, test, seed)

    def make(self, name: str, draw: random.Random) -> Example:
        label = draw.choice(("objective", "subjective"))
        return Example(name, self._plot(draw) if label == "objective" else self._review(draw), (label,))

    def _plot(self, draw: random.Random) -> str:
        (one, other), thing, place = draw.sample(PEOPLE, 2), draw.choice(THINGS), draw.choice(PLACES)
        first = f"{one} {draw.choice(self.EVENTS)} {thing} {place}"
        return draw.choice((f"{first} and meets {other}", f"when {first} , {other} follows", f"{first} with {other}"))

    def _review(self, draw: random.Random) -> str:
        one, other = draw.sample(self.PARTS, 2)
        good, bad = draw.choice(self.GOODS), draw.choice(self.BADS)
        return draw.choice(
            (
                f"the {one} is {good} but the {other} is {bad}",
                f"a {good} film with a {bad} {one} and a {draw.choice(self.GOODS)} {other}",
                f"it is too {bad} , though {draw.choice(PEOPLE)} would find the {one} {good}",
            )
        )

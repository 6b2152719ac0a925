"""Generated prompts and answers, so that every task runs without data. All of it is made up by a few lines of code."""

import random
from abc import abstractmethod
from types import MappingProxyType

from lrl_plugins.tasks.text.sources import Example, TextSource

PEOPLE = ("the cook", "a sailor", "the old king", "my sister", "a young doctor", "the farmer", "our teacher", "a thief")
THINGS = ("a red apple", "an old map", "the golden ring", "a heavy book", "some bread", "a small lamp", "the blue coat")
PLACES = ("in the garden", "at the market", "near the river", "on the bridge", "behind the house", "in the forest")


class MadeUp(TextSource):
    """Distinct generated examples; test and val are drawn first, so that the size of train does not change them.

    Args:
        train: Training examples.
        val: Validation examples.
        test: Test examples; no prompt is in two splits.
        seed: Other seeds give other examples.
    """

    def __init__(self, train: int, val: int, test: int, seed: int) -> None:
        self.counts = {"test": test, "val": val, "train": train}
        self.seed = seed

    def splits(self) -> dict[str, list[Example]]:
        draw = random.Random(f"{type(self).__name__}/{self.seed}")
        known: set[str] = set()
        return {split: self._split(split, count, draw, known) for split, count in self.counts.items()}

    def _split(self, split: str, count: int, draw: random.Random, known: set[str]) -> list[Example]:
        examples: list[Example] = []
        tries = 0
        while len(examples) < count:
            example = self.make(f"{split}-{len(examples)}", draw)
            tries += 1
            if example.prompt not in known:
                known.add(example.prompt)
                examples.append(example)
            elif tries > 100 * sum(self.counts.values()):
                raise ValueError(
                    f"{type(self).__name__}: got {sum(self.counts.values())} examples to make, but there are hardly "
                    f"more than {len(known)} different ones; expected fewer. Lower train, val and test, or make the "
                    "examples more varied."
                )
        return examples

    @abstractmethod
    def make(self, name: str, draw: random.Random) -> Example:
        """One example.

        Args:
            name: Its id.
            draw: Where chance comes from.
        """


class MadeUpMatches(MadeUp):
    """Reports of football matches that never took place, with a one-line summary in three wordings.

    Args:
        train: Training examples.
        val: Validation examples.
        test: Test examples; no prompt is in two splits.
        seed: Other seeds give other examples.
    """

    TEAMS = ("reds", "blues", "greens", "lions", "bears", "eagles", "sharks", "wolves", "tigers", "owls")
    TOWNS = ("oslo", "lima", "cairo", "bern", "kyoto", "quito", "dublin")
    DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    WEATHER = ("it rained all day", "the sun was shining", "there was a cold wind", "it was a warm evening")

    def __init__(self, train: int = 2000, val: int = 200, test: int = 200, seed: int = 0) -> None:
        super().__init__(train, val, test, seed)

    def make(self, name: str, draw: random.Random) -> Example:
        (one, other), town, day = draw.sample(self.TEAMS, 2), draw.choice(self.TOWNS), draw.choice(self.DAYS)
        more, less = sorted(draw.sample(range(6), 2), reverse=True)
        scores = [f"the {one} scored {more} goals.", f"the {other} scored {less} goals."]
        draw.shuffle(scores)
        report = [f"on {day} the {one} met the {other} in {town}.", f"{draw.choice(self.WEATHER)}.", *scores]
        summaries = (
            f"the {one} beat the {other} {more} to {less} in {town}",
            f"in {town} the {one} won {more} to {less} against the {other}",
            f"the {other} lost {less} to {more} to the {one} in {town}",
        )
        return Example(name, " ".join(report), summaries, {"winner": one})


class MadeUpScenes(MadeUp):
    """Who gave what to whom and where, in five wordings: one is the prompt, the others its paraphrases.

    Args:
        train: Training examples.
        val: Validation examples.
        test: Test examples; no prompt is in two splits.
        seed: Other seeds give other examples.
    """

    def __init__(self, train: int = 2000, val: int = 200, test: int = 200, seed: int = 0) -> None:
        super().__init__(train, val, test, seed)

    def make(self, name: str, draw: random.Random) -> Example:
        (giver, taker), thing, place = draw.sample(PEOPLE, 2), draw.choice(THINGS), draw.choice(PLACES)
        wordings = [
            f"{giver} gave {thing} to {taker} {place}",
            f"{place} {giver} handed {taker} {thing}",
            f"{taker} got {thing} from {giver} {place}",
            f"{place} {taker} was given {thing} by {giver}",
            f"it was {giver} who gave {taker} {thing} {place}",
        ]
        draw.shuffle(wordings)
        return Example(name, wordings[0], tuple(wordings[1:]))


class MadeUpVenues(MadeUp):
    """Names and properties of restaurants that do not exist, as `name[value], ...`, with three descriptions.

    Args:
        train: Training examples.
        val: Validation examples.
        test: Test examples; no prompt is in two splits.
        seed: Other seeds give other examples.
    """

    FIRST = ("blue", "golden", "old", "royal", "little", "green", "silver", "happy", "quiet", "north")
    LAST = ("lion", "garden", "kettle", "spoon", "harbour", "mill", "lantern", "fox", "table", "olive")
    KINDS = ("pub", "restaurant", "coffee shop")
    FOODS = ("italian", "indian", "french", "chinese", "english", "japanese")
    AREAS = ("city centre", "riverside", "old town")
    PRICES = ("cheap", "moderate", "high")

    def __init__(self, train: int = 2000, val: int = 200, test: int = 200, seed: int = 0) -> None:
        super().__init__(train, val, test, seed)

    def make(self, name: str, draw: random.Random) -> Example:
        venue = f"{draw.choice(self.FIRST)} {draw.choice(self.LAST)}"
        kind, food, area = draw.choice(self.KINDS), draw.choice(self.FOODS), draw.choice(self.AREAS)
        price = draw.choice(self.PRICES)
        slots = f"name[{venue}], eatType[{kind}], food[{food}], priceRange[{price}], area[{area}]"
        descriptions = (
            f"{venue} is a {kind} in the {area} with {food} food and {price} prices",
            f"in the {area} you find {venue} a {kind} that serves {food} food at {price} prices",
            f"for {food} food at {price} prices go to {venue} a {kind} in the {area}",
        )
        return Example(name, slots, descriptions)


class MadeUpStories(MadeUp):
    """Beginnings of tiny stories and how they go on; the columns before and after hold what stands around that.

    Args:
        train: Training examples.
        val: Validation examples.
        test: Test examples; no beginning is in two splits.
        seed: Other seeds give other examples.
    """

    TIMES = ("morning", "evening", "winter night", "summer day", "sunday")
    OUTCOMES = MappingProxyType(
        {
            "hid": "{one} looked for {thing} all year",
            "sold": "{one} never got the money for {thing}",
            "dropped": "{one} found only pieces of {thing}",
            "lost": "the birds took {thing}",
            "showed": "soon the whole town talked about {thing}",
        }
    )
    """What happened to the thing, and what came of it."""
    ENDINGS = ("and nobody saw it again", "and everybody laughed", "and went home", "but it was too late", "and slept")

    def __init__(self, train: int = 2000, val: int = 200, test: int = 200, seed: int = 0) -> None:
        super().__init__(train, val, test, seed)

    def make(self, name: str, draw: random.Random) -> Example:
        (one, other), thing = draw.sample(PEOPLE, 2), draw.choice(THINGS)
        here, there = draw.sample(PLACES, 2)
        beginning = f"one {draw.choice(self.TIMES)} {one} saw {thing} {here} and {other} came"
        verb = draw.choice(tuple(self.OUTCOMES))
        middle = f"then {other} {verb} {thing} {there} {draw.choice(self.ENDINGS)}"
        columns = {"before": beginning, "after": self.OUTCOMES[verb].format(one=one, thing=thing)}
        return Example(name, beginning, (middle,), columns)

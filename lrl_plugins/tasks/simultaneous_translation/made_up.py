"""Sentences of a made-up language whose verb comes last, and what they mean in English: nothing to download."""

import random

from lrl_plugins.tasks.files import place
from lrl_plugins.tasks.text.sources import Example, TextSource

PEOPLE = {
    "runo": "the man", "sila": "the woman", "kito": "the boy", "mela": "the girl",
    "duva": "the dog", "oram": "the cook", "tesa": "the queen", "vilo": "the painter",
}  # fmt: skip
THINGS = {
    "bal": "the ball", "tesk": "the table", "lum": "the lamp", "karu": "the car",
    "fena": "the window", "buk": "the book", "sola": "the chair", "rema": "the boat",
}  # fmt: skip
DEEDS = {
    "sehat": "sees", "nimat": "takes", "malat": "paints", "suhat": "looks for",
    "putat": "cleans", "kofat": "buys", "zigat": "shows", "varat": "forgets",
}  # fmt: skip
COLOURS = {"rot": "red", "grun": "green", "blo": "blue"}
PLACES = {"im hus": "in the house", "am see": "at the lake", "im garten": "in the garden", "": ""}


class VerbLast(TextSource):
    """Subject, place, object, verb become subject, verb, object, place: the verb is written second and heard last.

    Whoever writes before the verb is heard has to guess it. All words are made up; every sentence has one translation.

    Args:
        train: How many training sentences.
        val: How many validation sentences.
        test: How many test sentences.
        seed: Of the sentences.
    """

    def __init__(self, train: int = 2000, val: int = 100, test: int = 100, seed: int = 0) -> None:
        self.counts, self.seed = {"train": train, "val": val, "test": test}, seed

    def splits(self) -> dict[str, list[Example]]:
        return {split: self._examples(split, count) for split, count in self.counts.items()}

    def _examples(self, split: str, count: int) -> list[Example]:
        random_, found = random.Random(f"verb-last/{split}/{self.seed}"), dict[str, str]()
        while len(found) < count:
            source, target = sentence(random_)
            drawn = place(source)  # of every sentence: four in ten are held out, half of them for each split
            if split == ("val" if drawn < 0.2 else "test" if drawn < 0.4 else "train"):
                found[source] = target
        return [Example(f"{split}-{i}", *pair[:1], pair[1:]) for i, pair in enumerate(found.items(), start=1)]


def sentence(random_: random.Random) -> tuple[str, str]:
    """One sentence and its translation."""
    who, thing, deed = (random_.choice(list(words)) for words in (PEOPLE, THINGS, DEEDS))
    where, colour = random_.choice(list(PLACES)), random_.choice([*COLOURS, ""])
    article, noun = THINGS[thing].split(" ", 1)
    seen = " ".join(filter(None, (article, COLOURS.get(colour, ""), noun)))
    source = " ".join(filter(None, (who, where, colour, thing, deed)))
    return source, " ".join(filter(None, (PEOPLE[who], DEEDS[deed], seen, PLACES[where])))

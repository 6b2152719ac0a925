"""A small world of opinions about films and plays, in which it is known how much an answer is liked."""

import math
import random
from collections.abc import Sequence

from lrl_plugins.tasks.preferences.sources import PreferenceSource, Ranked
from lrl_plugins.tasks.text.made_up import MadeUp
from lrl_plugins.tasks.text.sources import Example

LIKED = {
    "wonderful": 2.0, "moving": 1.5, "funny": 1.5, "clever": 1.0, "charming": 1.0, "nice": 0.5,
    "odd": -0.5, "slow": -1.0, "silly": -1.0, "dull": -1.5, "clumsy": -1.5, "awful": -2.0,
}  # fmt: skip
"""What an adjective is worth."""
STRENGTH = {"rather": 0.5, "very": 1.5}
"""What an adverb makes of the adjective after it."""
SHAPES = ("{}", "{} and {}", "{} with {} actors", "{} with {} music and {} dialogue", "{} but {} at times")
"""How answers are worded."""
WHEN = ("last night", "yesterday", "on sunday", "a week ago", "this summer", "on my birthday", "long ago", "today")
WHO = ("my sister", "the teacher", "our neighbour", "a friend", "my father", "the baker", "an old actor", "the critic")
WHAT = ("film", "play", "opera", "series", "cartoon", "musical")
ABOUT = ("a king", "two thieves", "the sea", "a lost dog", "the moon", "a long war", "three sisters", "a ghost")


def worth(text: str) -> float:
    """How much an answer is liked: the mean worth of its adjectives, each as strong as its adverb says; 0 without any.

    A mean, so that neither length nor repetition pays. Between -3 ("very awful") and 3 ("very wonderful").
    """
    found: list[float] = []
    strength = 1.0
    for word in text.split():
        if word in LIKED:
            found.append(strength * LIKED[word])
        strength = STRENGTH.get(word, 1.0)
    return sum(found) / len(found) if found else 0.0


def worths(texts: Sequence[str]) -> list[float]:
    """`worth` of each text: a reward by rule, named by its import path in the reward Function."""
    return [worth(text) for text in texts]


class MadeUpPreferences(PreferenceSource):
    """Opinions such as "very moving with clever actors", ranked by a critic whose taste is known; no files.

    A prompt is the beginning of a sentence, "last night my sister saw the film about a king and found it". Candidates
    are worded by chance, and ranked by what their adjectives are worth (`worth`) with noise: of any two, one is
    preferred with probability sigma((its worth - the other's) / noise), as Bradley and Terry (1952) say and, for more
    than two, Plackett and Luce. So a preference model has something to find, and it can be measured what a policy has
    truly gained by its labels (`val/worth`).

    Args:
        train: Training prompts.
        val: Validation prompts.
        test: Test prompts; no prompt is in two splits.
        candidates: Answers per prompt, all different; at least 1.
        noise: How often the critic errs: 0 ranks by worth alone, 1 takes differences of worth as log-odds.
        seed: Other seeds give other prompts, answers and rankings.
    """

    def __init__(
        self,
        train: int = 2000,
        val: int = 200,
        test: int = 200,
        candidates: int = 4,
        noise: float = 0.5,
        seed: int = 0,
    ) -> None:
        if candidates < 1 or noise < 0:
            raise ValueError(
                f"MadeUpPreferences: got candidates {candidates} and noise {noise}, expected at least 1 and a number "
                ">= 0. Correct them in the recipe."
            )
        self.opinions = _Opinions(train, val, test, candidates, noise, seed)

    def splits(self) -> dict[str, list[Ranked]]:
        return {split: [_ranked(example) for example in own] for split, own in self.opinions.splits().items()}

    def worth(self, text: str) -> float:
        return worth(text)


def _ranked(example: Example) -> Ranked:
    """The candidates of an example, which come best first, shuffled by its own prompt."""
    order = list(range(len(example.references)))
    random.Random(example.prompt).shuffle(order)
    return Ranked(example.id, example.prompt, tuple(example.references[i] for i in order), tuple(order))


class _Opinions(MadeUp):
    """Prompts and their candidates, best first."""

    def __init__(self, train: int, val: int, test: int, candidates: int, noise: float, seed: int) -> None:
        super().__init__(train, val, test, seed)
        self.candidates, self.noise = candidates, noise

    def make(self, name: str, draw: random.Random) -> Example:
        when, who, what, about = (draw.choice(words) for words in (WHEN, WHO, WHAT, ABOUT))
        said: list[str] = []
        while len(said) < self.candidates:
            text = self._opinion(draw)
            said += [] if text in said else [text]
        liked = {text: worth(text) + self.noise * _gumbel(draw) for text in said}
        ordered = sorted(said, key=liked.__getitem__, reverse=True)
        return Example(name, f"{when} {who} saw the {what} about {about} and found it", tuple(ordered))

    def _opinion(self, draw: random.Random) -> str:
        shape = draw.choice(SHAPES)
        adverbs = ("", "", *(f"{word} " for word in STRENGTH))
        adjectives = draw.sample(sorted(LIKED), shape.count("{}"))
        return shape.format(*(draw.choice(adverbs) + word for word in adjectives))


def _gumbel(draw: random.Random) -> float:
    """Noise whose difference of two is logistic, so that sorting by worth plus noise is Plackett and Luce's model."""
    return -math.log(-math.log(draw.random() or 0.5))

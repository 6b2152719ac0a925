"""Lines to learn from: translations with a READ wherever a wait-k reader, or one that strays from it, reads a word."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A translation as a policy that reads and writes would have said it."""

    tokens: tuple[int, ...]
    """READs and words (and, where they are spoken, the words read), EOS at the end."""
    own: tuple[bool, ...]
    """False on words of the source, which nobody learns to say."""


def wait_k(k: int, sources: int, targets: int) -> list[int]:
    """Source words read before each of the target words and EOS: min(k + t - 1, |x|) (Ma et al. 2019, eq. 1).

    Args:
        k: Words read before the first is written; >= 1.
        sources: Words of the source.
        targets: Words of the target.
    """
    return [min(k + t, sources) for t in range(targets + 1)]


def stray(reads: Sequence[int], sources: int, random_: random.Random) -> list[int]:
    """A path near another one: between two words no word, one or two are read where the other one reads one.

    Args:
        reads: Words read before each target word, and before EOS.
        sources: Words of the source.
        random_: Draws.
    """
    path = [reads[0]]
    for _ in reads[1:]:
        path.append(min(path[-1] + random_.choice((0, 1, 1, 2)), sources))
    return path


def drawn_path(sources: int, targets: int, largest: int, straying: float, random_: random.Random) -> list[int]:
    """A reader drawn for one sentence: wait-k with k from 1 to `largest` or the whole sentence; some of them stray.

    One translator for every latency (multi-path training, Elbayad et al. 2020).

    Args:
        sources: Words of the source.
        targets: Words of the target.
        largest: The largest k; one more stands for the whole sentence.
        straying: Share of the sentences whose reader strays.
        random_: Draws.
    """
    k = random_.randint(1, largest + 1)
    path = wait_k(k if k <= largest else max(sources, 1), sources, targets)
    return stray(path, sources, random_) if random_.random() < straying else path


def lay_line(
    source: Sequence[Sequence[int]],
    target: Sequence[Sequence[int]],
    path: Sequence[int],
    *,
    first: int,
    read: int,
    eos: int,
    spoken: bool,
) -> Line:
    """Put a READ before every word that is read, behind those heard before the first action.

    Args:
        source: Words of the source, each as token ids.
        target: Words of the target.
        path: Words read before each target word, and before EOS.
        first: Words heard before the first action.
        read: Id of READ.
        eos: Id of the end token.
        spoken: Whether the words read stand in the line.
    """
    tokens: list[int] = []
    own: list[bool] = []
    heard = min(first, len(source))
    for word, reads in zip([*target, (eos,)], path, strict=True):
        while heard < reads:
            said = source[heard] if spoken else ()
            tokens += [read, *said]
            own += [True, *[False] * len(said)]
            heard += 1
        tokens += word
        own += [True] * len(word)
    return Line(tuple(tokens), tuple(own))

"""The READ/WRITE path of an episode: which words were written, and how much of the source had been read by then."""

from collections.abc import Callable, Collection, Sequence


def words_with_delays(
    tokens: Sequence[int], reads: Collection[int], first: int, total: int, decode: Callable[[Sequence[int]], str]
) -> tuple[list[str], list[int]]:
    """The words of the hypothesis, and how many pieces of the source had been read when each was complete.

    Tokens may be pieces of words: a word is complete with the last token that changed it. Tokens that `decode` leaves
    out, such as the end token, are no words and complete none.

    Args:
        tokens: The whole episode.
        reads: Token ids that make one more piece of the source visible.
        first: Pieces visible before the first token.
        total: Pieces of the source in all; READs beyond them read nothing.
        decode: Text of the written tokens, words apart by white space.
    """
    read = min(first, total)
    written: list[int] = []
    words: list[str] = []
    delays: list[int] = []
    for token in tokens:
        if token in reads:
            read = min(read + 1, total)
            continue
        written.append(token)
        now = decode(written).split()
        same = _common(words, now)
        delays = delays[:same] + [read] * (len(now) - same)
        words = now
    return words, delays


def actions(tokens: Sequence[int], reads: Collection[int], eos: int) -> str:
    """The path as a line such as "RRWRW": R for every READ, W for every token written, the end token left out.

    Args:
        tokens: The whole episode.
        reads: Token ids that read.
        eos: The end token.
    """
    return "".join("R" if token in reads else "W" for token in tokens if token != eos)


def _common(before: Sequence[str], now: Sequence[str]) -> int:
    """How many words at the start are the same."""
    same = 0
    while same < min(len(before), len(now)) and before[same] == now[same]:
        same += 1
    return same

"""Reading answers: normalised texts, what stands after a marker, and numbers as people and models write them."""

import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{{1,3}}(?!\d))?"
# A minus after a word or a bracket is an operator or a hyphen, not a sign: 10-3.
_SIGN = r"(?:(?<![\w)\].])[-+−])?[$€£¥]?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})"
    rf"(?:\\[dt]?frac\{{(?P<latex_top>{_DECIMAL})\}}\{{(?P<latex_bottom>{_DECIMAL})\}}"
    rf"|(?P<whole>{_DIGITS})\ (?P<part_top>\d+)/(?P<part_bottom>\d+)"
    rf"|(?P<top>{_DECIMAL})(?:/(?P<bottom>{_DECIMAL}))?)"
)


def normalised(text: str, lower: bool = True, strip_punctuation: bool = True) -> str:
    """A text for comparison: white space collapsed, and if wanted lower-cased and without punctuation.

    A text of nothing but punctuation keeps it.

    Args:
        text: What was said or wanted.
        lower: Whether case is ignored.
        strip_punctuation: Whether punctuation is left out ("it's" becomes "its").
    """
    text = text.casefold() if lower else text
    kept = "".join(c for c in text if not unicodedata.category(c).startswith("P")) if strip_punctuation else text
    return " ".join(kept.split()) or " ".join(text.split())


def after_marker(text: str, marker: str | None) -> str | None:
    """What stands after the last `marker`; None where it does not occur. The whole text if marker is None.

    Args:
        text: An answer, perhaps with its reasoning before it.
        marker: What announces the answer, such as "####" or "The answer is".
    """
    if marker is None:
        return text
    _, found, answer = text.rpartition(marker)
    return answer if found else None


def first_number(text: str) -> Fraction | None:
    """The first number in a text; None where there is none. See `last_number`."""
    return next(_numbers(text), None)


def last_number(text: str) -> Fraction | None:
    """The last number in a text, exactly; None where there is none.

    Read are signs, thousands commas, decimals, exponents, fractions (3/4, 1 1/2, LaTeX's frac) and currency signs
    before the number. Units and percent signs are ignored: 20% is 20.
    """
    return next(iter(deque(_numbers(text), maxlen=1)), None)


def answered_number(text: str, marker: str | None = None) -> Fraction | None:
    """The first number after the last `marker`, or the last number of the text if marker is None.

    Args:
        text: An answer.
        marker: What announces the number; None where nothing does.
    """
    if marker is None:
        return last_number(text)
    answer = after_marker(text, marker)
    return None if answer is None else first_number(answer)


def _numbers(text: str) -> Iterator[Fraction]:
    for match in _NUMBER.finditer(text):
        number = _value(match)
        if number is not None:
            yield number


def _value(match: re.Match[str]) -> Fraction | None:
    group = match.group
    try:
        if group("whole"):
            number = _plain(group("whole")) + _plain(group("part_top")) / _plain(group("part_bottom"))
        else:
            top, bottom = group("latex_top") or group("top"), group("latex_bottom") or group("bottom")
            number = _plain(top) / (_plain(bottom) if bottom else 1)
    # Nothing divides by zero, and a number of thousands of digits is no answer.
    except (ZeroDivisionError, ValueError):
        return None
    return -number if group("sign")[:1] in ("-", "−") else number


def _plain(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))

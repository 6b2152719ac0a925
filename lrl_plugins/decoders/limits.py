"""What all decoders share: length limits and the tokens that are never chosen."""

from lrl_core.interfaces import Decoder
from lrl_core.sampling import Sampling
from lrl_core.tokenizer import Tokenizer


def check_limits(decoder: Decoder, max_length: int, many: int, min_length: int) -> None:
    """Refuse limits that no episode can meet; `many` is the number of samples or the width of a beam."""
    name = type(decoder).__name__
    if max_length < 1 or many < 1:
        raise ValueError(f"{name}: got max_length {max_length} and {many} episodes at a time; expected both >= 1.")
    if min_length > max_length:
        raise ValueError(f"{name}: min_length {min_length} is above max_length {max_length}; change one of them.")


def plain_sampling(tokenizer: Tokenizer, banned: tuple[int, ...], min_length: int) -> Sampling:
    """The policy's own distribution without the tokens that are never chosen."""
    return Sampling(
        banned=tuple(sorted({*tokenizer.never_drawn, *banned})), min_length=min_length, eos=tokenizer.eos
    )

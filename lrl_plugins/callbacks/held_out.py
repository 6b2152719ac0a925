"""Names of logged numbers: which of them are the reward under another name, and which way is better."""

import re
from typing import Literal

from torch import nn

from lrl_core.interfaces import Reward, components

Direction = Literal["max", "min"]
"""Whether more or less of a metric is better."""

LESS_IS_BETTER = {
    *("perplexity", "loss", "nll", "error", "errors", "wer", "cer", "ter"),
    *("repetition", "self", "unjudged", "lagging", "delay", "latency"),
}
"""Words in a metric's name that say that less is better."""


def direction_of(metric: str) -> Direction:
    """Less is better where a word of the name says so (`val/perplexity`, `val/average_lagging`), else more."""
    return "min" if LESS_IS_BETTER & set(re.split(r"[^a-z]+", metric.rpartition("/")[2].lower())) else "max"


def reward_names(reward: nn.Module | None) -> set[str]:
    """What the reward is called: classes of all rewards in it, and the names under which a sum holds them."""
    if reward is None:
        return set()
    classes = {type(part).__name__ for part in components(reward) if isinstance(part, Reward)}
    terms = {path.rpartition(".")[2] for path, part in reward.named_modules() if isinstance(part, Reward)}
    return (classes | terms) - {""}


def is_reward(metric: str, names: set[str]) -> bool:
    """Whether a logged number is the training reward, or the same quantity on held-out prompts.

    It is where the name is that of the reward or of a part, but for case, punctuation, digits and one last letter:
    `val/BLEU_4` is BLEU, `val/ROUGE_L` is ROUGE, `val/CIDEr` is CIDErD. `val/reward/...` is what HeldOutReward logs.

    Args:
        metric: The number's name in the log.
        names: See `reward_names`.
    """
    held_out = metric.partition("/")[2] or metric
    known = metric.startswith("reward/") or held_out.startswith("reward/")
    return known or any(_same_quantity(held_out, name) for name in names)


def _same_quantity(metric: str, reward: str) -> bool:
    short, long = sorted((_letters(metric), _letters(reward)), key=len)
    return short == long or (len(short) >= 3 and long.startswith(short) and len(long) == len(short) + 1)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower()) or name

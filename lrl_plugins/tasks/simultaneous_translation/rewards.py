"""What a simultaneous translation is worth: quality by prefix, and delay against a target (Gu et al. 2017)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.metrics.bleu import BleuCounter, Smoothing, bleu
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.tasks.simultaneous_translation.metrics import average_proportion

References = tuple[str, ...]

EVERYTHING = 10**9
"""More words than any source has."""


@dataclass(frozen=True)
class Listener:
    """What these rewards must know of the task."""

    read: int
    """Id of READ; -1 in a task where nobody speaks."""
    shown: int
    """Source words heard before the first action."""
    tokenizer: Tokenizer
    """Tokens to text."""

    @classmethod
    def of(cls, facts: TaskFacts) -> "Listener":
        """From a task; one without READ is a task in which everything is heard before the first action."""
        speaker = facts.environment
        if speaker is None or len(speaker.closes) != 1:
            return cls(-1, EVERYTHING, facts.tokenizer)
        return cls(speaker.closes[0], speaker.shown, facts.tokenizer)


class IncrementalBLEU(Reward):
    """Smoothed sentence BLEU: what every written word adds to it, and the whole in the end (Gu et al. 2017, eq. 5).

    The increment BLEU0(Y_t) - BLEU0(Y_t-1) stands on each token that is written, where BLEU0 has no brevity penalty;
    the last token that the policy chose has the BLEU of the sentence in place of its increment. The return of an early
    token so counts quality about twice: once as it grows, once in the end. Words are those of sacrebleu's 13a
    tokenisation.

    Args:
        increments: Whether prefixes are paid; without, the sentence's BLEU is the whole reward.
        n: Longest n-gram.
        smoothing: What a precision without matches becomes; see the reward BLEU.
    """

    concurrent = True

    def __init__(self, increments: bool = True, n: int = 4, smoothing: Smoothing = "add_one") -> None:
        super().__init__()
        if n < 1 or smoothing not in get_args(Smoothing):
            raise ValueError(
                f"IncrementalBLEU: got n {n} and smoothing {smoothing!r}; expected n >= 1 and one of "
                f"{', '.join(get_args(Smoothing))}. Correct the recipe."
            )
        self.increments, self.n, self.smoothing = increments, n, smoothing
        self._counter: BleuCounter[References] = BleuCounter(n)

    def bind(self, facts: TaskFacts) -> None:
        self.listener = Listener.of(facts)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references."""
        references = rollout.prompts.references or ((),) * len(rollout)
        known = [row for row, own in enumerate(references) if own]
        episodes = [self._episode(rollout, row) for row in known]
        said = [words for episode in episodes for _, words in episode]
        keys = [references[row] for row, episode in zip(known, episodes, strict=True) for _ in episode]
        whole, free = self._scores(said, keys)
        total = torch.full((len(rollout),), torch.nan, dtype=torch.float64)
        final = total.clone()
        by_token = torch.zeros(rollout.tokens.shape, dtype=torch.float64)
        start = 0
        for row, episode in zip(known, episodes, strict=True):
            end = start + len(episode)
            final[row] = whole[end - 1]
            places = [place for place, _ in episode]
            if self.increments:
                by_token[row, places[1:]] = free[start + 1 : end] - free[start : end - 1]
            by_token[row, places[-1]] = whole[end - 1]
            total[row] = by_token[row].sum()
            start = end
        device = rollout.tokens.device
        return RewardSignal(
            total.float().to(device), by_token.float().to(device), parts={f"BLEU_{self.n}": final.float().to(device)}
        )

    def _episode(self, rollout: Rollout, row: int) -> list[tuple[int, list[str]]]:
        """Places of the episode's prefixes that are scored, from the empty one to the whole, and their words."""
        length, read = int(rollout.lengths[row]), self.listener.read
        tokens, chosen = rollout.tokens[row, :length].tolist(), rollout.action_mask[row, :length].tolist()
        last = last_chosen(chosen)
        own = [place for place in range(length) if chosen[place] and tokens[place] != read]
        prefixes: list[tuple[int, list[str]]] = [(0, [])]
        for count, place in enumerate(own, start=1):
            if self.increments and place != last:
                prefixes.append((place, self._words([tokens[i] for i in own[:count]])))
        return [*prefixes, (last, self._words([tokens[i] for i in own]))]

    def _words(self, tokens: Sequence[int]) -> list[str]:
        return words_13a(self.listener.tokenizer.decode(tokens))

    def _scores(self, said: list[list[str]], keys: list[References]) -> tuple[Tensor, Tensor]:
        """BLEU of each text, and BLEU without brevity penalty."""
        if not said:
            return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        statistics = self._counter.compare(said, keys, lambda own: [words_13a(text) for text in own])
        score = torch.from_numpy(bleu(statistics, self.smoothing)[:, -1].copy())
        length = torch.from_numpy(statistics.length).double()
        short = (1 - torch.from_numpy(statistics.reference_length) / length.clamp(min=1)).clamp(max=0)
        return score, torch.where(length > 0, score / short.exp(), 0.0)


class Delay(Reward):
    """Takes away for waiting too long: in a row, and on the whole (Gu et al. 2017, eq. 6 to 8). Never above 0.

    wait_weight x (sgn(c_t - c*) + 1) on every token, c_t the words heard in a row up to it (0 once it writes); and
    proportion_weight x max(d - d*, 0) on the last one, d the average proportion of the source that had been heard when
    the tokens were written (EOS counted; 1 where nothing was written).

    Args:
        proportion: Target d* of the average proportion, in [0, 1]; None: it costs nothing.
        wait: Target c* of words heard in a row, >= 1; None: it costs nothing.
        proportion_weight: Cost of a proportion of 1 above the target; >= 0.
        wait_weight: Cost of each token above the target, half of it at the target; >= 0.
    """

    concurrent = True

    def __init__(
        self,
        proportion: float | None = 0.7,
        wait: int | None = None,
        proportion_weight: float = 1.0,
        wait_weight: float = 0.025,
    ) -> None:
        super().__init__()
        if (proportion is not None and not 0 <= proportion <= 1) or (wait is not None and wait < 1):
            raise ValueError(
                f"Delay: got proportion {proportion} and wait {wait}; expected a share from 0 to 1 and a number of "
                "words >= 1, or null for what costs nothing. Correct the recipe."
            )
        if proportion_weight < 0 or wait_weight < 0:
            raise ValueError(
                f"Delay: got proportion_weight {proportion_weight} and wait_weight {wait_weight}; expected both >= 0, "
                "as delay is a cost. Leave out the sign."
            )
        self.proportion, self.wait = proportion, wait
        self.proportion_weight, self.wait_weight = proportion_weight, wait_weight

    def bind(self, facts: TaskFacts) -> None:
        self.listener = Listener.of(facts)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode."""
        examples = rollout.prompts.examples or ({},) * len(rollout)
        costs, shares = torch.zeros(rollout.tokens.shape), torch.zeros(len(rollout))
        for row, example in enumerate(examples):
            length = int(rollout.lengths[row])
            tokens, chosen = rollout.tokens[row, :length].tolist(), rollout.action_mask[row, :length].tolist()
            reads = [token == self.listener.read and own for token, own in zip(tokens, chosen, strict=True)]
            words = len(str(example.get("source", "")).split())
            own = [None if not mine else read for mine, read in zip(chosen, reads, strict=True)]
            shares[row] = average_share(own, self.listener.shown, words)
            if length:
                costs[row, :length] = self._waits(own)
                costs[row, last_chosen(chosen)] += self._late(float(shares[row]))
        costs = costs.to(rollout.tokens.device)
        return RewardSignal(costs.sum(1), by_token=costs, parts={"average_proportion": shares.to(costs)})

    def _late(self, share: float) -> float:
        return 0.0 if self.proportion is None else -self.proportion_weight * max(share - self.proportion, 0)

    def _waits(self, actions: Sequence[bool | None]) -> Float[Tensor, " T"]:
        costs, run = [], self.listener.shown
        for read in actions:
            if read is not None:
                run = run + 1 if read else 0
            sign = 0 if self.wait is None or read is None else 1 + (run > self.wait) - (run < self.wait)
            costs.append(-self.wait_weight * sign if sign else 0.0)
        return torch.tensor(costs)


def average_share(actions: Sequence[bool | None], shown: int, words: int) -> float:
    """The average proportion (Cho and Esipova 2016): of the source, heard when each token was written; 1 for no token.

    Args:
        actions: True for a READ, False for a written token, None for a word of the world.
        shown: Source words heard before the first action.
        words: Source words in all; 0 gives 1.
    """
    heard, when = min(shown, words), []
    for read in actions:
        if read:
            heard = min(heard + 1, words)
        elif read is False:
            when.append(heard)
    return average_proportion(when, words, len(when)) if when and words else 1.0


def last_chosen(chosen: Sequence[bool]) -> int:
    """Place of the last token that the policy chose, which is paid for the whole; the last one of all if it chose none.

    Where words of the world stand behind it (the limit cut the episode in their midst), pay there would teach nobody.

    Args:
        chosen: Which of the tokens the policy chose.
    """
    return max((place for place, own in enumerate(chosen) if own), default=max(len(chosen) - 1, 0))


def words_13a(text: str) -> list[str]:
    """Words and punctuation marks as mteval-v13a and sacrebleu tell them apart."""
    return _tokenizer_13a()(text).split()


@cache
def _tokenizer_13a() -> Callable[[str], str]:
    """One for all texts: it remembers those that it has seen."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()

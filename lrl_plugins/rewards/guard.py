"""A reward that may hang, crash or answer wrongly, made safe to train on."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch

from lrl_core.interfaces import Reward
from lrl_core.registry import PluginError, origin
from lrl_core.scoring import judge
from lrl_core.threads import as_here
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.combine import combined
from lrl_plugins.rewards.normalise import Normaliser
from lrl_plugins.rewards.partial import from_rows, unjudged

OnFailure = Literal["raise", "mask", "retry"]
Result = TypeVar("Result")
MOST_HANGING = 8
"""With this many calls that never came back, no further one is made until one does."""
_log = logging.getLogger(__name__)


class Guard(Reward):
    """Wraps a reward so that one that hangs, raises or breaks its contract costs NaN rows, never zeros.

    Every failure is a line in the log that names the reward and its package. After an exception a reward that is
    `rowwise` is asked again episode by episode, so that only those that fail are NaN; otherwise, and after the time
    limit, the batch is. A call that hangs cannot be ended; it is left behind in a thread of its own.

    Args:
        reward: The reward.
        time_limit: Seconds a call may take; None waits for ever.
        on_failure: raise (stop the run), mask (NaN rows) or retry (ask again, then mask).
        retries: How often `retry` asks again.
        normalise: Rescales the reward as in Sum; raw and normalised rewards are logged. None leaves it as it is.
    """

    def __init__(
        self,
        reward: Reward,
        time_limit: float | None = None,
        on_failure: OnFailure = "mask",
        retries: int = 2,
        normalise: Normaliser | None = None,
    ) -> None:
        super().__init__()
        if on_failure not in get_args(OnFailure):
            expected = ", ".join(get_args(OnFailure))
            raise ValueError(f"Guard: on_failure is {on_failure!r}; expected one of {expected}. Correct the recipe.")
        if retries < 0 or (time_limit is not None and time_limit <= 0):
            raise ValueError(
                f"Guard: retries is {retries} and time_limit {time_limit}; expected retries >= 0 and a time_limit > 0, "
                "or null for none. Correct the recipe."
            )
        if any(isinstance(module, Normaliser) for module in reward.modules()):
            raise ValueError(
                f"Guard got a {type(reward).__name__} that normalises; expected the normaliser outside, for a reward "
                "that is asked again would count its batch twice. Guard the terms, or give Guard the normaliser."
            )
        self.reward, self.normalise = reward, normalise
        self.time_limit, self.on_failure, self.retries = time_limit, on_failure, retries
        self.concurrent = reward.concurrent and normalise is None
        self.comparable = reward.comparable and (normalise is None or normalise.comparable)
        self.rowwise = reward.rowwise and (normalise is None or normalise.rowwise)

    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge with the reward; NaN where it failed."""
        signal = self._asked(rollout)
        if self.normalise is None:
            return signal
        name = type(self.reward).__name__
        return combined({name: signal}, {name: self.normalise(signal.total)}, {name: 1.0}, rollout)

    def _asked(self, rollout: Rollout) -> RewardSignal:
        """What the reward says, after as many attempts as are allowed."""
        attempts = 1 + (self.retries if self.on_failure == "retry" else 0)
        for attempt in range(1, attempts + 1):
            try:
                return self._once(rollout, self.time_limit)
            except Exception as error:
                if self.on_failure == "raise":
                    raise _refusal(self._name(), error) from error.__cause__
                _log.warning("%s, attempt %d of %d: %s", self._name(), attempt, attempts, self._reason(error))
                failure = error
        if isinstance(failure, TimeoutError) or not self.reward.rowwise or len(rollout) == 1:
            _log.warning("%s, all %d episodes of the batch are NaN.", self._name(), len(rollout))
            return unjudged(rollout)
        return self._row_by_row(rollout)

    def _row_by_row(self, rollout: Rollout) -> RewardSignal:
        """What the reward says of each episode alone; all of them together have one time limit."""
        deadline = None if self.time_limit is None else time.monotonic() + self.time_limit
        signals: list[RewardSignal | None] = [None] * len(rollout)
        for row in range(len(rollout)):
            left = None if deadline is None else deadline - time.monotonic()
            only = rollout.select(torch.tensor([row], device=rollout.tokens.device))
            try:
                signals[row] = self._once(only, left)
            except TimeoutError as error:
                _log.warning("%s, episodes %d to %d are NaN: %s", self._name(), row, len(rollout) - 1, error)
                break
            except Exception as error:
                _log.warning("%s, episode %d is NaN: %s", self._name(), row, self._reason(error))
        return from_rows(rollout, signals)

    def _once(self, rollout: Rollout, limit: float | None) -> RewardSignal:
        if limit is None:
            return judge(self.reward, rollout)
        hanging = sum(thread.name == self._thread_name for thread in threading.enumerate())
        if limit <= 0:
            raise TimeoutError("the time limit has passed")
        if hanging >= MOST_HANGING:
            raise TimeoutError(f"{hanging} earlier calls have not come back; it is asked again when one has")
        return within(limit, as_here(lambda: judge(self.reward, rollout), rollout.tokens.device), self._thread_name)

    @property
    def _thread_name(self) -> str:
        return f"lrl-guard-{id(self)}"

    def _name(self) -> str:
        return f"{type(self.reward).__name__} ({origin(type(self.reward))})"

    def _reason(self, error: Exception) -> str:
        return str(error).removeprefix(self._name()).strip() or type(error).__name__


def within(limit: float, call: Callable[[], Result], name: str) -> Result:
    """What `call` returns or raises, in a thread of its own; TimeoutError once the limit has passed.

    Args:
        limit: Seconds.
        call: What to do; it goes on in the background after the limit.
        name: Of the thread.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(limit)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {limit:.3g} seconds")
    return results[0]


def _refusal(name: str, error: Exception) -> PluginError:
    if isinstance(error, PluginError):
        return error  # says already who failed and what to do
    return PluginError(
        f"{name}: {error}; expected one judgement per episode in time. Repair it, raise time_limit, or set "
        "on_failure: mask."
    )

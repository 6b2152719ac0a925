"""The seams between rewards, baselines and the training step: contracts checked once, errors that name the plugin."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from lrl_core.interfaces import Baseline, Reward, Sampler
from lrl_core.masks import length_mask
from lrl_core.registry import PluginError, origin
from lrl_core.threads import as_here
from lrl_core.types import Advantage, RewardSignal, Rollout

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds after which a line in the log names the reward that is waited for."""

TOLERANCE = 1e-4
"""How far the increments of by_token may be from total, absolutely and relatively."""


def judge(reward: Reward, rollout: Rollout) -> RewardSignal:
    """Score the episodes and hold the reward to its contract; every caller of a reward goes through here.

    Args:
        reward: The plugin.
        rollout: The episodes, with texts.
    """
    try:
        with _watched(reward):
            signal = reward.score(rollout)
    except PluginError:
        raise  # a reward inside this one has already been named
    except Exception as error:
        raise PluginError(
            f"{_name(reward)} failed while scoring {len(rollout)} episodes: {type(error).__name__}: {error}. "
            "A reward that cannot judge an episode returns NaN for it instead of raising; the cause stands above."
        ) from error
    if not isinstance(signal, RewardSignal):
        _refuse(reward, f"a {type(signal).__name__}", "a RewardSignal", "Return RewardSignal(total=...) from score().")
    _check_total(reward, signal, rollout)
    _check_by_token(reward, signal, rollout)
    _check_by_prefix(reward, signal, rollout)
    _check_parts(reward, signal, rollout)
    return signal


@contextmanager
def begun(reward: Reward, rollout: Rollout, beside: bool) -> Iterator[Callable[[Rollout], RewardSignal]]:
    """Gives what judges the episodes; where the reward allows it, that begins at once in a thread of its own.

    Args:
        reward: The plugin.
        rollout: The episodes.
        beside: Whether there is other work meanwhile.
    """
    if not (beside and reward.concurrent):
        yield partial(judge, reward)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="lrl-reward") as pool:
        early = pool.submit(as_here(partial(judge, reward, rollout), rollout.tokens.device))
        yield lambda _: early.result()


def compare(baseline: Baseline, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
    """Ask a baseline for its advantages and hold it to its contract."""
    advantage = baseline.advantage(rollout, reward, sampler)
    if advantage.value.shape != rollout.tokens.shape or not bool(advantage.value.isfinite().all()):
        raise ValueError(
            f"Baseline {type(baseline).__name__}: got advantages of shape {tuple(advantage.value.shape)} with "
            f"{int((~advantage.value.isfinite()).sum())} non-finite entries; expected finite numbers of shape "
            f"{tuple(rollout.tokens.shape)}, 0 where nothing is taught."
        )
    return advantage


@contextmanager
def _watched(reward: Reward) -> Iterator[None]:
    """Say in the log which reward is waited for, once it takes long."""
    line = "Still waiting for the reward %s after %g seconds. A time limit can be set with the reward Guard."
    timer = threading.Timer(PATIENCE, log.warning, (line, _name(reward), PATIENCE))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def count_unjudged(signal: RewardSignal) -> int:
    """How many episodes the reward could not judge."""
    return int(signal.total.isnan().sum())


def _check_total(reward: Reward, signal: RewardSignal, rollout: Rollout) -> None:
    _check_tensor(reward, "total", signal.total, (len(rollout),), rollout)
    if signal.total.isinf().any():
        rows = signal.total.isinf().nonzero().flatten().tolist()
        _refuse(
            reward,
            f"an infinite total in rows {_some(rows)}",
            "finite numbers",
            "Clamp the reward, or return NaN where it cannot judge.",
        )


def _check_by_token(reward: Reward, signal: RewardSignal, rollout: Rollout) -> None:
    if signal.by_token is None:
        return
    _check_tensor(reward, "by_token", signal.by_token, tuple(rollout.tokens.shape), rollout)
    judged = signal.judged
    _check_rows(
        reward,
        "a by_token that is not finite",
        judged & ~signal.by_token.isfinite().all(1),
        "finite increments on every judged row",
        "Put 0 on tokens that earn nothing.",
    )
    padding = ~length_mask(rollout.lengths, rollout.tokens.shape[1])
    _check_rows(
        reward,
        "a by_token that pays padding",
        judged & (padding & (signal.by_token != 0)).any(1),
        "0 after rollout.lengths",
        "Entry [b, t] is about rollout.tokens[b, t]; check for a shift by one.",
    )
    total = signal.total.nan_to_num().double()
    gap = (signal.by_token.double().sum(1) - total).abs()
    # An episode without tokens has no place for an increment.
    apart = judged & (rollout.lengths > 0) & (gap > TOLERANCE * (1 + total.abs()))
    _check_rows(
        reward,
        f"a by_token whose sum is up to {gap[apart].max().item() if apart.any() else 0:.3g} away from total",
        apart,
        f"increments that add up to total within {TOLERANCE}",
        "Make total the sum of by_token.",
    )


def _check_by_prefix(reward: Reward, signal: RewardSignal, rollout: Rollout) -> None:
    if signal.by_prefix is None:
        return
    rows, steps = rollout.tokens.shape
    _check_tensor(reward, "by_prefix", signal.by_prefix, (rows, steps + 1), rollout)
    within = torch.arange(steps + 1, device=rollout.tokens.device) <= rollout.lengths[:, None]
    _check_rows(
        reward,
        "a by_prefix that is not finite",
        signal.judged & (within & ~signal.by_prefix.isfinite()).any(1),
        "a finite worth for every prefix of 0..length tokens of a judged row",
        "Use a large negative number for a prefix that must not end.",
    )


def _check_parts(reward: Reward, signal: RewardSignal, rollout: Rollout) -> None:
    if not isinstance(signal.parts, dict):
        got = f"parts of type {type(signal.parts).__name__}"
        _refuse(reward, got, "a dict from name to numbers [B]", "Return parts={} if there is nothing to log.")
    for name, part in signal.parts.items():
        _check_tensor(reward, f"parts[{name!r}]", part, (len(rollout),), rollout)


def _check_tensor(reward: Reward, field: str, value: Tensor, shape: tuple[int, ...], rollout: Rollout) -> None:
    letters = {"total": "[B]", "by_token": "[B, T]", "by_prefix": "[B, T + 1]"}.get(field, "[B]")
    expected = f"a floating-point tensor of shape {letters} = {list(shape)} on {rollout.tokens.device}"
    if not isinstance(value, Tensor):
        _refuse(reward, f"{field} of type {type(value).__name__}", expected, "Wrap it: torch.tensor(values).")
    if tuple(value.shape) != shape:
        todo = f"Give one number per {'episode' if letters == '[B]' else 'entry'}; nothing is broadcast."
        _refuse(reward, f"{field} of shape {list(value.shape)}", expected, todo)
    if not value.is_floating_point():
        _refuse(reward, f"{field} of type {value.dtype}", expected, "Call .float(); only floats can say NaN.")
    if value.device != rollout.tokens.device:
        _refuse(reward, f"{field} on {value.device}", expected, "Create it with device=rollout.tokens.device.")


def _check_rows(reward: Reward, got: str, wrong: Tensor, expected: str, todo: str) -> None:
    if wrong.any():
        _refuse(reward, f"{got} in rows {_some(wrong.nonzero().flatten().tolist())}", expected, todo)


def _refuse(reward: Reward, got: str, expected: str, todo: str) -> NoReturn:
    raise PluginError(f"{_name(reward)} returned {got}; expected {expected}. {todo}")


def _name(reward: Reward) -> str:
    return f"{type(reward).__name__} ({origin(type(reward))})"


def _some(rows: list[int]) -> str:
    shown = ", ".join(map(str, rows[:5]))
    return f"{shown} and {len(rows) - 5} more" if len(rows) > 5 else shown

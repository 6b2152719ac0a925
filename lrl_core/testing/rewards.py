"""The conformance kit for authors of rewards: `check_reward(lambda: MyReward(...))` in a test of your package."""

import copy
import io
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lrl_core.interfaces import Reward, TaskFacts, bind_all
from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.scoring import judge
from lrl_core.tokenizer import Tokenizer, WordTokenizer
from lrl_core.types import Prompts, RewardSignal, Rollout

EXAMPLE_REFERENCES = (
    ("a man rides a horse", "a person riding a horse"),
    ("a cat sits on the mat", "the cat is on a mat"),
    ("two dogs play in the park", "dogs playing in a park"),
)
EXAMPLE_TEXTS = (
    ("a man riding a horse", "a horse"),
    ("a cat on the mat", "the cat sits on"),
    ("the the the the", ""),
)
TRUNCATED = "the cat sits on"


def check_reward(
    make: Callable[[], Reward],
    rollout: Rollout | None = None,
    facts: TaskFacts | None = None,
) -> None:
    """Raise AssertionError (or PluginError, for a broken contract) unless the reward behaves as lrl relies on.

    Checked in eval mode, after one call in training mode: the contract at the seam, the same answer twice, no change
    to the rollout, no gradients, independence of row order, padding and (where the reward says `rowwise`) other rows, a
    state dict that restores the scores, and texts that are empty.

    Args:
        make: Makes a fresh reward, with the same arguments each time.
        rollout: Episodes to score; None takes `example_rollout()`.
        facts: What the reward is bound to; None makes them from the rollout.
    """
    rollout = example_rollout() if rollout is None else rollout
    facts = facts_of(rollout) if facts is None else facts
    before = copy.deepcopy(rollout)
    reward = _bound(make, facts)
    reward.train()
    judge(reward, rollout)
    reward.eval()
    signal = judge(reward, rollout)
    _demand(_same(before, rollout), reward, "changed the rollout it was given", "leave it as it is")
    _check_detached(reward, signal)
    _compare(reward, judge(reward, rollout), signal, "gave other scores when asked again", "be deterministic in eval")
    _check_order(reward, rollout, signal)
    _check_padding(reward, rollout, facts.tokenizer, signal)
    if reward.rowwise:
        _check_alone(reward, rollout, signal)
    _check_state(reward, make, facts, rollout, signal)
    judge(reward, replace(rollout, texts=("",) * len(rollout)))


def example_rollout(samples: int = 2) -> Rollout:
    """Six captions of three pictures: good, short, cut off by the length limit, repetitive and empty ones.

    Args:
        samples: Captions per picture, 1 or 2.
    """
    tokenizer = example_tokenizer()
    texts = tuple(text for row in EXAMPLE_TEXTS for text in row[:samples])
    terminated = [text != TRUNCATED for text in texts]
    lines = [tokenizer.encode(text) + [tokenizer.eos] * done for text, done in zip(texts, terminated, strict=True)]
    lengths = torch.tensor([len(line) for line in lines])
    longest = int(lengths.max())
    tokens = torch.tensor([line + [tokenizer.pad] * (longest - len(line)) for line in lines])
    mask = length_mask(lengths, longest)
    return Rollout(
        prompts=_example_prompts(samples),
        tokens=tokens,
        lengths=lengths,
        action_mask=mask,
        logprobs=torch.where(mask, -0.5, 0.0),
        reference_logprobs=torch.where(mask, -0.75, 0.0),
        terminated=torch.tensor(terminated),
        sampling=Sampling(banned=tokenizer.never_drawn),
        texts=texts,
    )


def example_tokenizer() -> WordTokenizer:
    """Knows every word of the example."""
    said = [text for row in (*EXAMPLE_REFERENCES, *EXAMPLE_TEXTS) for text in row]
    return WordTokenizer.from_texts(said)


def facts_of(rollout: Rollout, tokenizer: Tokenizer | None = None) -> TaskFacts:
    """What a task with these prompts would tell its components.

    Args:
        rollout: Episodes whose prompts stand for the training data.
        tokenizer: None makes one of the words in the rollout.
    """
    prompts, _ = rollout.prompts.distinct()
    references = prompts.references or ()
    if tokenizer is None:
        said = [*(rollout.texts or ()), *(text for row in references for text in row)]
        tokenizer = WordTokenizer.from_texts(said)
    return TaskFacts(tokenizer=tokenizer, references=references, example=prompts)


def with_padding(rollout: Rollout, pad: int, columns: int = 3) -> Rollout:
    """The same episodes with more columns of padding.

    Args:
        rollout: The episodes.
        pad: Token id that fills the new columns.
        columns: How many.
    """

    def widened(value: Tensor, fill: float) -> Tensor:
        return torch.cat([value, value.new_full((value.shape[0], columns), fill)], dim=1)

    paid, reference = rollout.environment_reward, rollout.reference_logprobs
    return replace(
        rollout,
        tokens=widened(rollout.tokens, pad),
        action_mask=widened(rollout.action_mask, False),
        logprobs=widened(rollout.logprobs, 0),
        environment_reward=None if paid is None else widened(paid, 0),
        reference_logprobs=None if reference is None else widened(reference, 0),
    )


def _example_prompts(samples: int) -> Prompts:
    tokenizer, pictures = example_tokenizer(), len(EXAMPLE_REFERENCES)
    lines = [[*tokenizer.encode(row[0]), tokenizer.eos] for row in EXAMPLE_REFERENCES]
    longest = max(map(len, lines))
    prompts = Prompts(
        tokens=torch.zeros(pictures, 0, dtype=torch.long),
        lengths=torch.zeros(pictures, dtype=torch.long),
        group=torch.arange(pictures),
        references=EXAMPLE_REFERENCES,
        targets=torch.tensor([line + [tokenizer.pad] * (longest - len(line)) for line in lines]),
        target_lengths=torch.tensor([len(line) for line in lines]),
        features={"pixels": torch.linspace(0, 1, pictures * 3 * 4 * 4).view(pictures, 3, 4, 4)},
        examples=tuple({"id": f"picture-{i}"} for i in range(pictures)),
    )
    return prompts.select(torch.arange(pictures).repeat_interleave(samples))


def _bound(make: Callable[[], Reward], facts: TaskFacts) -> Reward:
    reward = make()
    bind_all(reward, facts)
    return reward


def _check_detached(reward: Reward, signal: RewardSignal) -> None:
    tensors = {"total": signal.total, "by_token": signal.by_token, "by_prefix": signal.by_prefix, **signal.parts}
    attached = [name for name, value in tensors.items() if value is not None and value.requires_grad]
    _demand(not attached, reward, f"returned {attached} with gradients", "score under torch.no_grad()")


def _check_order(reward: Reward, rollout: Rollout, signal: RewardSignal) -> None:
    order = torch.arange(len(rollout), device=rollout.tokens.device).flip(0)
    got = judge(reward, rollout.select(order))
    _compare(reward, got, signal.select(order), "scored rows by their place in the batch", "score each row by itself")


def _check_padding(reward: Reward, rollout: Rollout, tokenizer: Tokenizer, signal: RewardSignal) -> None:
    # Narrowed back to the old width; the seam has already refused a reward that pays padding.
    got = judge(reward, with_padding(rollout, tokenizer.pad))
    _compare(reward, _narrowed(got, rollout), _narrowed(signal, rollout), "was moved by padding", "read only lengths")


def _check_alone(reward: Reward, rollout: Rollout, signal: RewardSignal) -> None:
    for row in range(len(rollout)):
        only = torch.tensor([row], device=rollout.tokens.device)
        part = rollout.select(only).trimmed()
        got = judge(reward, part)
        expected = _narrowed(signal.select(only), part)
        todo = "score each row by itself, or say rowwise = False if it must look at the batch"
        _compare(reward, _narrowed(got, part), expected, f"scored row {row} differently when alone", todo)


def _check_state(
    reward: Reward, make: Callable[[], Reward], facts: TaskFacts, rollout: Rollout, signal: RewardSignal
) -> None:
    saved = io.BytesIO()
    torch.save(reward.state_dict(), saved)
    saved.seek(0)
    restored = _bound(make, facts)
    restored.load_state_dict(torch.load(saved, weights_only=True, map_location=rollout.tokens.device))
    restored.eval()
    todo = "keep what scores depend on in buffers, parameters or get_extra_state"
    _compare(reward, judge(restored, rollout), signal, "scored differently after its state dict was restored", todo)


def _narrowed(signal: RewardSignal, rollout: Rollout) -> RewardSignal:
    """Per-token entries within the episodes; worths of prefixes past the end do not matter."""
    steps = rollout.tokens.shape[1]
    by_token = None if signal.by_token is None else signal.by_token[:, :steps]
    if signal.by_prefix is None:
        return replace(signal, by_token=by_token)
    past = torch.arange(steps + 1, device=rollout.tokens.device) > rollout.lengths[:, None]
    return replace(signal, by_token=by_token, by_prefix=signal.by_prefix[:, : steps + 1].masked_fill(past, 0))


def _compare(reward: Reward, got: RewardSignal, expected: RewardSignal, problem: str, todo: str) -> None:
    names = got.parts.keys() == expected.parts.keys()
    _demand(names, reward, f"{problem} (parts {sorted(got.parts)}, not {sorted(expected.parts)})", todo)
    pairs = {field: (getattr(got, field), getattr(expected, field)) for field in ("total", "by_token", "by_prefix")}
    pairs |= {f"parts[{name!r}]": (got.parts[name], expected.parts[name]) for name in expected.parts}
    for field, (left, right) in pairs.items():
        both = left is not None and right is not None
        close = torch.allclose(left, right, rtol=1e-4, atol=1e-5, equal_nan=True) if both else left is right
        _demand(close, reward, f"{problem}: {field} is {left}, not {right}", todo)


def _demand(holds: bool, reward: Reward, problem: str, todo: str) -> None:
    if not holds:
        raise AssertionError(f"{type(reward).__name__} {problem}. A reward must {todo}.")


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.shape == right.shape and torch.equal(left, right)
    if is_dataclass(left):
        return all(_same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    return bool(left == right)

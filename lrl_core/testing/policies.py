"""The conformance kit of policies: what every policy must satisfy for rollout and loss to agree.

`check_policy` raises AssertionError that names the property, the row and by how much it fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from lrl_core.interfaces import Policy, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.testing.policy_examples import example_facts as example_facts
from lrl_core.testing.policy_examples import example_prompts as example_prompts
from lrl_core.testing.policy_examples import example_tokenizer as example_tokenizer
from lrl_core.testing.policy_examples import random_rollout as random_rollout
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Prompts, Rollout

TOLERANCE = 1e-4
"""Largest difference of log-probabilities that counts as equal, in nats."""

TRUNCATIONS = (
    Sampling(temperature=0.7),
    Sampling(top_k=4),
    Sampling(top_p=0.8),
    Sampling(min_p=0.3),
    Sampling(temperature=0.7, top_k=6, top_p=0.9, min_p=0.05),
)
"""Distributions under which a fresh rollout must have importance ratio 1."""


def check_policy(
    make: Callable[[], Policy], facts: TaskFacts, prompts: Prompts, steps: int = 5, tolerance: float = TOLERANCE
) -> None:
    """Assert everything that a policy owes the decoders and the objectives.

    Args:
        make: Makes a fresh policy that knows no task yet.
        facts: What the task tells it; its tokenizer says how many token ids there are.
        prompts: At least three rows; unequal lengths and a group that occurs twice show the most.
        steps: Tokens per episode.
        tolerance: Largest difference of log-probabilities that counts as equal.
    """
    assert len(prompts) >= 3, f"check_policy: got {len(prompts)} prompts; give at least three."
    policy = bound(make, facts, seed=0)
    rollout = random_rollout(prompts, facts.tokenizer, steps)
    case = Case(policy, rollout, facts.tokenizer, tolerance)
    check_mode_is_untouched(case)
    policy.eval()
    for check in (
        check_logits,
        check_step_equals_forward,
        check_padding,
        check_neighbours,
        check_causality,
        check_select,
        check_importance_ratio,
        check_gradients,
    ):
        check(case)
    check_state_dict(case, make, facts)


@dataclass(frozen=True)
class Case:
    """One policy and one rollout of random tokens."""

    policy: Policy
    rollout: Rollout
    tokenizer: Tokenizer
    tolerance: float

    @torch.no_grad()
    def forward(self, rollout: Rollout | None = None) -> Float[Tensor, "B T"]:
        """Log-probabilities that the one-pass reading gives."""
        return self.policy(rollout or self.rollout).logprobs

    @torch.no_grad()
    def played(self, prompts: Prompts, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits that begin and step give while these tokens are fed."""
        logits, state = self.policy.begin(prompts)
        every = [logits]
        for column in tokens[:, :-1].unbind(1):
            logits, state = self.policy.step(column, state)
            every.append(logits)
        return torch.stack(every, 1)

    def same(self, what: str, got: Float[Tensor, "B T"], expected: Float[Tensor, "B T"]) -> None:
        """Assert that two readings are equal up to the tolerance."""
        assert got.shape == expected.shape, self.say(what, f"shape {list(got.shape)}, expected {list(expected.shape)}")
        broken = ~((got - expected).abs() <= self.tolerance)  # NaN breaks it too
        if not broken.any():
            return
        row, step = broken.nonzero()[0].tolist()
        length = int(broken.sum())
        pair = f"{got[row, step]:.6f}, expected {expected[row, step]:.6f}"
        off = f"{float((got - expected).abs().max()):.2g} at worst, tolerance {self.tolerance:.0e}"
        raise AssertionError(self.say(what, f"row {row}, token {step}: {pair} ({length} tokens differ, {off})"))

    def say(self, what: str, how: str) -> str:
        """The complaint, with the name of the policy."""
        return f"{type(self.policy).__name__}: {what}: {how}"


def bound(make: Callable[[], Policy], facts: TaskFacts, seed: int) -> Policy:
    """A fresh policy that knows its task; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = make()
        policy.bind(facts)
    return policy


def check_mode_is_untouched(case: Case) -> None:
    """The caller decides between train and eval mode; reading changes neither."""
    for training in (True, False):
        case.policy.train(training)
        case.forward()
        case.played(case.rollout.prompts, case.rollout.tokens[:, :2])
        changed = [name for name, module in case.policy.named_modules() if module.training != training]
        assert not changed, case.say("mode", f"reading changed train/eval mode of {changed}; the caller decides it")


def check_logits(case: Case) -> None:
    """begin and step give finite logits, one per token id."""
    prompts = case.rollout.prompts
    expected = (len(prompts), case.rollout.tokens.shape[1], len(case.tokenizer))
    logits = case.played(prompts, case.rollout.tokens)
    assert logits.shape == expected, case.say("logits", f"[B T V] is {list(logits.shape)}, expected {list(expected)}")
    broken = logits.isnan().any(2).any(1).nonzero().squeeze(1).tolist()
    assert not broken, case.say("logits", f"NaN in rows {broken}")


def check_step_equals_forward(case: Case) -> None:
    """step after begin gives the logits that forward scores with."""
    rollout = case.rollout
    log_softmax = case.played(rollout.prompts, rollout.tokens).log_softmax(2)
    stepped = log_softmax.gather(2, rollout.tokens[:, :, None]).squeeze(2)
    real = rollout.action_mask
    case.same("step after begin must equal forward", stepped.masked_fill(~real, 0), case.forward())
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(len(case.tokenizer), generator=generator).to(log_softmax) / len(case.tokenizer) ** 0.5
    with torch.no_grad():
        every = case.policy(rollout).over_vocabulary(lambda logprobs: logprobs @ weights.to(logprobs))
    what = "step after begin must equal forward on the whole vocabulary"
    case.same(what, (log_softmax @ weights).masked_fill(~real, 0), every)


def check_padding(case: Case) -> None:
    """What stands in padding, and how much of it there is, changes nothing."""
    rollout, prompts = case.rollout, case.rollout.prompts
    expected, first = case.forward(), case.played(prompts, rollout.tokens)[:, 0]
    other = next(i for i in range(len(case.tokenizer)) if i not in case.tokenizer.never_drawn)
    wider = widened(prompts, 3, other)
    case.same("prompt padding must not change forward", case.forward(replace(rollout, prompts=wider)), expected)
    case.same("prompt padding must not change begin", case.played(wider, rollout.tokens)[:, 0], first)
    longer = lengthened(rollout, 3, other)
    steps = rollout.tokens.shape[1]
    case.same("episode padding must not change forward", case.forward(longer)[:, :steps], expected)


def check_neighbours(case: Case) -> None:
    """A row's numbers do not depend on the other rows or on their order."""
    rollout = case.rollout
    expected, logits = case.forward(), case.played(rollout.prompts, rollout.tokens)
    turned = torch.arange(len(rollout)).flip(0)
    case.same("the order of rows must not change forward", case.forward(rollout.select(turned)).flip(0), expected)
    for row in range(len(rollout)):
        alone = trimmed(rollout.select(torch.tensor([row])))
        steps = alone.tokens.shape[1]
        what = f"forward of row {row} must not depend on other rows"
        case.same(what, case.forward(alone), expected[row : row + 1, :steps])
        played = case.played(alone.prompts, alone.tokens)[0]
        case.same(f"begin and step of row {row} must not depend on other rows", played, logits[row, :steps])


def check_causality(case: Case) -> None:
    """A token changes nothing that stands before it."""
    rollout = case.rollout
    expected = case.forward()
    allowed = [i for i in range(len(case.tokenizer)) if i not in case.tokenizer.never_drawn]
    following = torch.arange(len(case.tokenizer))
    following[torch.tensor(allowed)] = torch.tensor([*allowed[1:], allowed[0]])
    for step in range(rollout.tokens.shape[1]):
        tokens = rollout.tokens.clone()
        tokens[:, step] = following[tokens[:, step]]
        changed = case.forward(replace(rollout, tokens=tokens))
        case.same(f"changing token {step} must not change what is before it", changed[:, :step], expected[:, :step])


def check_select(case: Case) -> None:
    """Repeated, reordered and dropped rows of a state go on as if those rows had been played from the start."""
    prompts, tokens = case.rollout.prompts, case.rollout.tokens
    last = len(prompts) - 1
    for at in (0, min(2, tokens.shape[1] - 1)):
        for rows in ([last, 0, 0, last, 0], [1, last], list(range(len(prompts)))[::-1]):
            _check_one_selection(case, prompts, tokens, at, torch.tensor(rows))


@torch.no_grad()
def _check_one_selection(case: Case, prompts: Prompts, tokens: Tensor, at: int, rows: Tensor) -> None:
    shift = torch.arange(len(rows))[:, None] + 1  # repeats go on differently
    allowed = torch.tensor([i for i in range(len(case.tokenizer)) if i not in case.tokenizer.never_drawn])
    onward = allowed[(tokens[rows, at:] + shift) % len(allowed)]
    whole = torch.cat([tokens[rows, :at], onward], 1)
    expected = case.played(prompts.select(rows), whole)
    logits, state = case.policy.begin(prompts)
    for column in tokens[:, :at].unbind(1):
        logits, state = case.policy.step(column, state)
    state = state.select(rows)
    got = [logits[rows]]
    for column in onward[:, :-1].unbind(1):
        logits, state = case.policy.step(column, state)
        got.append(logits)
    what = f"state.select({rows.tolist()}) after {at} tokens must go on like those rows played from the start"
    case.same(what, torch.stack(got, 1).flatten(1), expected[:, at:].flatten(1))


def check_importance_ratio(case: Case) -> None:
    """Log-probabilities recomputed under the recorded sampling are those drawn from: the ratio is 1."""
    for number, sampling in enumerate(TRUNCATIONS):
        sampling = replace(sampling, banned=case.tokenizer.never_drawn)
        rollout = drawn(case, sampling, seed=number)
        what = f"the importance ratio of a fresh rollout must be 1 under {sampling}"
        ratio = (case.forward(rollout) - rollout.logprobs).exp()
        case.same(what, ratio, torch.ones_like(ratio))


@torch.no_grad()
def drawn(case: Case, sampling: Sampling, seed: int) -> Rollout:
    """A rollout drawn from the policy by begin and step, every row as long as the case's."""
    generator = torch.Generator().manual_seed(seed)
    prompts, steps = case.rollout.prompts, case.rollout.tokens.shape[1]
    logits, state = case.policy.begin(prompts)
    tokens, logprobs = [], []
    for t in range(steps):
        scaled = sampling.scale(logits, torch.full((len(prompts),), t))
        kept = scaled.masked_fill(~sampling.keep(scaled), -torch.inf).log_softmax(1)
        tokens.append(torch.multinomial(kept.exp(), 1, generator=generator).squeeze(1))
        logprobs.append(kept.gather(1, tokens[-1][:, None]).squeeze(1))
        if t + 1 < steps:
            logits, state = case.policy.step(tokens[-1], state)
    mask = case.rollout.action_mask
    return replace(
        case.rollout,
        tokens=torch.stack(tokens, 1),
        logprobs=torch.stack(logprobs, 1).masked_fill(~mask, 0),
        sampling=sampling,
    )


def check_gradients(case: Case) -> None:
    """Every trainable parameter gets a finite gradient, and not all of them are zero."""
    policy = case.policy
    policy.zero_grad()
    output = policy(case.rollout)
    values = output.logprobs.new_zeros(()) if output.values is None else output.values.sum()
    (output.logprobs.sum() + output.entropy.sum() + values).backward()
    gradients = {name: p.grad for name, p in policy.named_parameters() if p.requires_grad}
    policy.zero_grad()
    reached = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    without = sorted(gradients.keys() - reached.keys())
    assert not without, case.say("gradients", f"no gradient reaches {without}; use them, or remove or freeze them")
    broken = [name for name, gradient in reached.items() if not gradient.isfinite().all()]
    assert not broken, case.say("gradients", f"not finite in {broken}")
    assert any(gradient.any() for gradient in reached.values()), case.say("gradients", "zero in every parameter")


def check_state_dict(case: Case, make: Callable[[], Policy], facts: TaskFacts) -> None:
    """A policy with other weights gives the same numbers once it has loaded these weights."""
    other = bound(make, facts, seed=1).eval()
    other.load_state_dict(case.policy.state_dict())
    case.same("state_dict must carry every number", replace(case, policy=other).forward(), case.forward())


def widened(prompts: Prompts, columns: int, token: int) -> Prompts:
    """The same prompts with more padding, and with `token` standing in all of it."""
    tokens = torch.nn.functional.pad(prompts.tokens, (0, columns))
    real = length_mask(prompts.lengths, tokens.shape[1])
    return replace(prompts, tokens=tokens.masked_fill(~real, token))


def lengthened(rollout: Rollout, columns: int, token: int) -> Rollout:
    """The same episodes with more padding, and with `token` standing in all of it."""

    def longer(values: Shaped[Tensor, "B T"]) -> Shaped[Tensor, "B longer"]:
        return torch.nn.functional.pad(values, (0, columns))

    tokens, mask = longer(rollout.tokens), longer(rollout.action_mask)
    tokens = tokens.masked_fill(torch.arange(tokens.shape[1]) >= rollout.lengths[:, None], token)
    return replace(rollout, tokens=tokens, action_mask=mask, logprobs=longer(rollout.logprobs))


def trimmed(rollout: Rollout) -> Rollout:
    """The same rows without padding that all of them share, in prompt and episode."""
    prompts = rollout.prompts
    return replace(rollout.trimmed(), prompts=replace(prompts, tokens=prompts.tokens[:, : int(prompts.lengths.max())]))

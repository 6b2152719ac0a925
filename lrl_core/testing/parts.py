"""The conformance kit for decoders, baselines, objectives and replays: what every plugin of the kind must keep."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from lrl_core.interfaces import Baseline, Decoder, Objective, Policy, Replay, State, bind_all
from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.testing.exact import gradient_moments
from lrl_core.testing.toy import (
    TREE_GRADIENT,
    TablePolicy,
    TableReward,
    ToySampler,
    ToyTokenizer,
    toy_facts,
    toy_prompts,
    tree_world,
)
from lrl_core.types import ActionValues, Advantage, Experience, PolicyOutput, Prompts, RewardSignal, Rollout
from lrl_core.vocab import Head

EOS = 3

Result = TypeVar("Result")
Lines = TypeVar("Lines", Rollout, Advantage)


def bigram_world() -> tuple[TablePolicy, TableReward]:
    """A bigram policy over a, b, c and EOS, and a reward that counts the letter a."""
    table = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return TablePolicy(table, eos=EOS), TableReward(lambda tokens: float(tokens.count(0)))


class ValuedTable(TablePolicy):
    """A table policy with a value head: the worth of a state is the sum of its line."""

    def forward(self, rollout: Rollout) -> PolicyOutput:
        output = super().forward(rollout)
        output.values = output.estimate(lambda hidden: hidden @ self.table.sum(1))
        return output


class Forgetful(Policy):
    """A policy whose logits are dropped at random in train mode, for decoders that want dropout.

    Args:
        inner: What it says in eval mode.
    """

    def __init__(self, inner: Policy) -> None:
        super().__init__()
        self.inner, self.drop = inner, torch.nn.Dropout(0.5)

    def forward(self, rollout: Rollout) -> PolicyOutput:
        return self.inner(rollout)

    def begin(self, prompts: Prompts) -> tuple[Tensor, State]:
        logits, state = self.inner.begin(prompts)
        return self.drop(logits), state

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = self.inner.step(tokens, state)
        return self.drop(logits), state


def answered_prompts() -> Prompts:
    """Three empty prompts with human answers of 3, 2 and 4 tokens."""
    targets = torch.tensor([[0, 1, EOS, 0], [2, EOS, 0, 0], [1, 2, 0, EOS]])
    return replace(toy_prompts(3, same=False), targets=targets, target_lengths=torch.tensor([3, 2, 4]))


def check_decoder(make: Callable[[], Decoder]) -> None:
    """Assert that a decoder returns well-formed episodes whose log-probabilities the loss recomputes exactly.

    Args:
        make: Builds the decoder; with a length limit of at most 12.
    """
    decoder, policy = make(), Forgetful(bigram_world()[0]).eval()
    bind_all(decoder, toy_facts(ToyTokenizer(4, eos=EOS)))
    prompts = answered_prompts()
    rollout = _seeded(lambda: decoder.decode(policy, prompts))
    assert len(rollout) == 3 * decoder.samples, f"got {len(rollout)} episodes; expected samples for each of 3 prompts"
    expected_groups = prompts.group.repeat_interleave(decoder.samples).tolist()
    assert rollout.prompts.group.tolist() == expected_groups, "the episodes of one prompt must stand together"
    real = length_mask(rollout.lengths, rollout.tokens.shape[1])
    assert bool((rollout.action_mask <= real).all()), "action_mask is True on padding"
    assert bool((rollout.logprobs[~rollout.action_mask] == 0).all()), "logprobs must be 0 where action_mask is False"
    last = rollout.tokens.gather(1, rollout.lengths[:, None] - 1).squeeze(1)
    assert bool(((last == EOS) == rollout.terminated).all()), "terminated must say whether the end token was chosen"
    assert rollout.sampling is not None, "a decoder must record how its distribution was made"
    recomputed = policy(rollout).logprobs.detach()
    error = (recomputed - rollout.logprobs).abs().max()
    assert error < 1e-4, f"the loss recomputes other log-probabilities than the decoder returned: off by {error:.2e}"
    again = _seeded(lambda: decoder.decode(policy, prompts))
    assert again.tokens.equal(rollout.tokens), "two runs with one seed differ"
    assert not any(module.training for module in policy.modules()), "decoding left the policy in train mode"
    _check_bans(rollout)


def _check_bans(rollout: Rollout) -> None:
    """What `Sampling` says that is never chosen has not been chosen."""
    sampling = rollout.sampling
    assert sampling is not None
    chosen = rollout.tokens[rollout.action_mask].tolist()
    assert not set(chosen) & set(sampling.banned), "a banned token was chosen"
    ended = rollout.terminated & rollout.action_mask.any(1)
    assert bool((rollout.lengths[ended] >= sampling.min_length).all()), "an episode ended before min_length"
    if sampling.limit is not None:
        assert bool(rollout.terminated.all()), "an episode was cut although the limit forces the end token"
    at = rollout.action_mask.nonzero(as_tuple=True)
    bans = sampling.bans(rollout.tokens, at, rollout.closed)
    if bans is not None:
        again = (rollout.tokens[at][bans.row] == bans.token) & (at[1][bans.row] + 1 >= sampling.min_length)
        assert not bool(again.any()), f"an n-gram of {sampling.no_repeat_ngram} tokens occurs twice"


def check_baseline(make: Callable[[], Baseline], objective: Objective, decoder: Decoder, scale: float = 1.0) -> None:
    """Assert that a baseline returns clean advantages and leaves the expected gradient where it is.

    Args:
        make: Builds the baseline.
        objective: An unbiased objective (sequence mean of token sums) to measure with.
        decoder: The training decoder that the baseline may ask for; bound or not.
        scale: What the expected gradient may be multiplied by; (N-1)/N with N = 2 for a mean that includes the sample.
    """
    policy, reward = tree_world()
    facts = toy_facts(ToyTokenizer(3))
    bind_all(decoder, facts)
    baseline = make()
    bind_all(baseline, facts)
    sampler = ToySampler(policy, decoder, reward)
    mean, _ = gradient_moments(policy, reward, baseline, objective, sampler, samples=2)
    off = (mean + scale * torch.tensor(TREE_GRADIENT, dtype=torch.float64)).abs().max()
    assert off < 2e-6, f"the expected gradient is off by {off:.2e}"
    _check_unjudged(make, decoder)


def _check_unjudged(make: Callable[[], Baseline], decoder: Decoder) -> None:
    baseline, facts = make(), toy_facts(ToyTokenizer(4, eos=EOS))
    for part in (baseline, decoder):
        bind_all(part, facts)
    rollout, signal = toy_episodes()
    policy, reward = bigram_world()
    sampler = ToySampler(policy, decoder, reward, baseline)
    advantage = baseline.advantage(rollout, signal, sampler)
    assert advantage.value.shape == rollout.tokens.shape, "advantages must have the shape of the tokens"
    assert bool(advantage.value.isfinite().all()), "advantages must be finite, also where the reward is NaN"
    taught = rollout.action_mask & signal.judged[:, None]
    assert bool((advantage.value[~taught] == 0).all()), "advantages must be 0 off the mask and on unjudged rows"


def check_objective(make: Callable[[], Objective]) -> None:
    """Assert that an objective is a sum over what it counts, and that what may not teach does not.

    Args:
        make: Builds the objective.
    """
    objective, policy = make(), ValuedTable(bigram_world()[0].table.detach(), eos=EOS)
    experience = full_experience()
    whole = _gradient(policy, objective, experience)
    parts = experience.split(1)
    assert len(parts) == 2
    summed = sum((_gradient(policy, objective, part) for part in parts), torch.zeros_like(whole))
    assert torch.allclose(whole, summed, atol=1e-9), "the loss must be a sum: micro-batches change the gradient"
    counts = sum((objective.count(part) for part in parts), torch.zeros(()))
    assert torch.allclose(counts, objective.count(experience)), "count must add up over micro-batches"
    assert bool(whole.isfinite().all()), "the gradient is not finite"
    assert torch.allclose(whole, _gradient(policy, objective, _padded(experience)), atol=1e-9), (
        "padding changes the loss"
    )
    if objective.samples:
        _check_masked(policy, objective, experience)


def _check_masked(policy: TablePolicy, objective: Objective, experience: Experience) -> None:
    """An unjudged episode teaches nothing, whatever its tokens are."""
    assert experience.rollout is not None
    assert experience.reward is not None
    unjudged = (~experience.reward.judged).nonzero().squeeze(1)
    tokens = experience.rollout.tokens.clone()
    tokens[unjudged] = (tokens[unjudged] + 1) % 3
    other = replace(experience, rollout=replace(experience.rollout, tokens=tokens))
    first, second = _gradient(policy, objective, experience), _gradient(policy, objective, other)
    assert torch.allclose(first, second, atol=1e-9), "an episode whose reward is NaN moves the gradient"


def check_replay(make: Callable[[], Replay]) -> None:
    """Assert that a replay yields experience, asks for episodes only if it says so, and repeats itself given a seed.

    Args:
        make: Builds the replay.
    """
    fresh = toy_experience()
    experts = Experience(expert=fresh.expert)
    collect = _ToyCollect(fresh)

    def expert() -> Experience:
        return experts

    replay = make()
    first = _seeded(lambda: len([*replay.batches(collect, expert)]))
    assert first >= 1, "a replay must yield something to learn from"
    assert replay.samples or not collect.calls, "samples is False, but the replay asked for episodes"
    second = _seeded(lambda: len([*make().batches(collect, expert)]))
    assert first == second, "two runs with one seed make different numbers of batches: ranks would wait for ever"


class _ToyCollect:
    """Gives a replay the same episodes every time, and counts how often it asks.

    Args:
        fresh: The episodes.
    """

    def __init__(self, fresh: Experience) -> None:
        assert fresh.rollout is not None
        self.fresh, self.calls = fresh, 0
        self.prompts = fresh.rollout.prompts

    def __call__(self, groups: Collection[int] | None = None) -> Experience:
        self.calls += 1
        return self.fresh if groups is None else self.fresh.of_groups(set(groups))


def toy_experience() -> Experience:
    """Four episodes of two prompts, one of them unjudged, with an environment's word, and two human answers."""
    rollout, signal = toy_episodes()
    value = torch.where(rollout.action_mask & signal.judged[:, None], signal.total.nan_to_num()[:, None] - 0.5, 0)
    answers = rollout.select(torch.tensor([0, 2]))
    expert = replace(answers, action_mask=length_mask(answers.lengths, 4), logprobs=torch.zeros(2, 4), sampling=None)
    return Experience(rollout, signal, Advantage(value), expert=expert)


def full_experience() -> Experience:
    """The same, read by a reference policy that is 0.2 nats less sure of every token, and by a critic."""
    experience = toy_experience()
    rollout, advantage = experience.rollout, experience.advantage
    assert rollout is not None
    assert advantage is not None
    reference = torch.where(rollout.action_mask, rollout.logprobs - 0.2, 0)
    guess = torch.linspace(-0.3, 0.6, 4, dtype=advantage.value.dtype)
    values = torch.where(experience.learn_mask, guess, 0)
    return replace(
        experience,
        rollout=replace(rollout, reference_logprobs=reference),
        advantage=Advantage(advantage.value, advantage.value + values, values, _action_values(rollout)),
    )


def _action_values(rollout: Rollout) -> ActionValues:
    """What a critic of two states might think of a, b, c and EOS before each token."""
    rows, steps = rollout.tokens.shape
    hidden = torch.linspace(-1, 1, rows * steps * 2, dtype=torch.float64).view(rows, steps, 2)
    return ActionValues(hidden, Head(torch.linspace(-1, 1, 8, dtype=torch.float64).view(4, 2).sin(), None))


def toy_episodes() -> tuple[Rollout, RewardSignal]:
    """Four episodes of two prompts, with an environment's word, and their rewards, one of them unknown."""
    policy, _ = bigram_world()
    lengths = torch.tensor([4, 2, 3, 4])
    mask = length_mask(lengths, 4)
    mask[0, 1] = False  # an environment's word
    prompts = replace(toy_prompts(4), group=torch.tensor([7, 7, 9, 9]))
    rollout = Rollout(
        prompts=prompts,
        tokens=torch.tensor([[0, 1, 2, 3], [1, 3, 0, 0], [2, 0, 3, 0], [0, 0, 1, 2]]),
        lengths=lengths,
        action_mask=mask,
        logprobs=torch.zeros(4, 4, dtype=torch.float64),
        terminated=torch.tensor([True, True, True, False]),
        sampling=Sampling(),
        texts=("abc", "b", "ca", "aabc"),
    )
    rollout = replace(rollout, logprobs=policy(rollout).logprobs.detach())
    total = torch.tensor([1.0, torch.nan, 0.25, 2.0], dtype=torch.float64)
    stopped = torch.linspace(-1, 1, 20, dtype=torch.float64).view(4, 5).sin()
    by_prefix = torch.where(length_mask(lengths, 5), stopped, total[:, None])
    return rollout, RewardSignal(total, by_prefix=by_prefix)


def _gradient(policy: TablePolicy, objective: Objective, experience: Experience) -> Tensor:
    policy.zero_grad()
    objective.loss(policy, experience).total.sum().backward()
    assert policy.table.grad is not None, "the loss has no gradient to the policy"
    return policy.table.grad.clone()


def _padded(experience: Experience) -> Experience:
    def longer(line: Tensor | None) -> Tensor | None:
        return None if line is None else torch.nn.functional.pad(line, (0, 2))

    def padded(lines: Lines) -> Lines:
        names = ("tokens", "action_mask", "logprobs", "reference_logprobs", "value", "target", "values")
        wide: dict[str, Any] = {n: longer(getattr(lines, n)) for n in names if n in lines.__dataclass_fields__}
        return replace(lines, **wide)

    rollout, advantage, expert = experience.rollout, experience.advantage, experience.expert
    reward = experience.reward
    assert rollout is not None
    assert reward is not None
    assert advantage is not None
    assert expert is not None
    wide = padded(advantage)
    if advantage.actions is not None:
        hidden = torch.nn.functional.pad(advantage.actions.hidden, (0, 0, 0, 2))
        wide = replace(wide, actions=replace(advantage.actions, hidden=hidden))
    reward = replace(reward, by_prefix=longer(reward.by_prefix))
    return replace(experience, rollout=padded(rollout), reward=reward, advantage=wide, expert=padded(expert))


def _seeded(call: Callable[[], Result]) -> Result:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return call()

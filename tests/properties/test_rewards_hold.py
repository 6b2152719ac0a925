"""What every registered reward owes the training step: the contract, failures that are no zeros, limits, credit."""

import random
import shutil
import time
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from registered import build, names, small_models

from lrl_core.interfaces import Reward, bind_all
from lrl_core.registry import PluginError, catalogue
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, facts_of
from lrl_core.types import RewardSignal
from lrl_plugins.rewards.guard import Guard
from lrl_plugins.rewards.normalise import BatchStandardise, Standardise
from lrl_plugins.rewards.sum import Sum

JAVA = {"METEOR", "SPICE"}
CANNOT_JUDGE_HERE = {
    "SPICE": "its models are a download",
    "Remote": "nobody answers at its address",
}
MODELS = {
    "BERTScore": "encoder",
    "SentenceSimilarity": "encoder",
    "Classifier": "classifier",
}
MAKES_ROLLOUTS = {"PrefixDifferences"}
"""Rewards for which the type checker of the tests looks at an item of a tuple that it chooses with Python's random."""

rewards = pytest.mark.parametrize("name", names("rewards"))
scored = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in JAVA else []) for name in names("rewards")]
)
"""Where rewards really score: starting Java takes many seconds."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def make(name, models):
    """Builds the reward of the test's name."""
    if name in JAVA and shutil.which("java") is None:
        pytest.skip(f"{name} needs Java")
    if name in MODELS:
        return lambda: build("rewards", name, model=models[MODELS[name]])
    return lambda: build("rewards", name)


@pytest.fixture
def reward(make):
    part = make()
    bind_all(part, facts_of(example_rollout()))
    return part.eval()


def skip_without_its_program(name):
    if name == "SPICE":
        pytest.skip(f"SPICE refuses to score: {CANNOT_JUDGE_HERE[name]}")


def replaced(reward, score):
    """The same plugin, answering something else."""
    reward.score = score
    return reward


@scored
def test_keeps_the_contract(name, make):
    if name in CANNOT_JUDGE_HERE:
        pytest.skip(f"{name} cannot judge here: {CANNOT_JUDGE_HERE[name]}")
    check_reward(make)


MALFORMED = {
    "one value for all": lambda rollout: RewardSignal(torch.tensor([0.5])),
    "a scalar": lambda rollout: RewardSignal(torch.tensor(0.5)),
    "one too few": lambda rollout: RewardSignal(torch.zeros(len(rollout) - 1)),
    "integers": lambda rollout: RewardSignal(torch.zeros(len(rollout), dtype=torch.long)),
    "an infinite one": lambda rollout: RewardSignal(torch.full((len(rollout),), torch.inf)),
    "a list": lambda rollout: [0.0] * len(rollout),
    "misaligned increments": lambda rollout: RewardSignal(
        torch.zeros(len(rollout)), by_token=torch.zeros(len(rollout), rollout.tokens.shape[1] + 1)
    ),
    "increments that do not add up": lambda rollout: RewardSignal(
        torch.zeros(len(rollout)), by_token=torch.where(rollout.action_mask, 1.0, 0.0)
    ),
}


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("malformed", MALFORMED)
@rewards
def test_a_malformed_answer_is_refused_by_name(name, reward, malformed):
    package = catalogue()["rewards"][name].package
    with pytest.raises(PluginError, match=rf"{name} \({package}.*\) returned .*expected"):
        judge(replaced(reward, MALFORMED[malformed]), example_rollout())


@rewards
def test_a_failure_is_named_and_never_a_zero(name, reward):
    def fail(rollout):
        raise OSError("the grader is away")

    broken = replaced(reward, fail)
    with pytest.raises(PluginError, match=rf"{name} .*the grader is away"):
        judge(broken, example_rollout())
    for policy in ("mask", "retry"):
        assert judge(Guard(broken, on_failure=policy), example_rollout()).total.isnan().all()


@rewards
def test_only_the_rows_that_fail_are_masked(name, reward):
    """One that raises on every third row, whatever it says of the others."""
    rollout = example_rollout()
    marked = replace(rollout, terminated=torch.arange(len(rollout)) % 3 == 2)

    def fail_on_every_third(episodes):
        if episodes.terminated.any():
            raise ValueError("an odd one")
        return RewardSignal(torch.ones(len(episodes)))

    reward.rowwise = True
    total = judge(Guard(replaced(reward, fail_on_every_third), on_failure="mask"), marked).total
    assert total.isnan().tolist() == marked.terminated.tolist()
    assert total[~marked.terminated].eq(1).all()


@rewards
def test_one_that_hangs_is_named_in_the_log_and_masked(name, reward, caplog):
    release = Event()

    def hang(rollout):
        release.wait(20)
        return RewardSignal(torch.zeros(len(rollout)))

    start = time.perf_counter()
    try:
        signal = judge(Guard(replaced(reward, hang), time_limit=0.05, on_failure="mask"), example_rollout())
    finally:
        release.set()
    assert time.perf_counter() - start < 10
    assert signal.total.isnan().all()
    assert name in caplog.text


@scored
def test_increments_add_up_and_stand_on_real_tokens(name, reward):
    skip_without_its_program(name)
    rollout = example_rollout()
    signal = judge(reward, rollout)
    if signal.by_token is None:
        assert signal.total.shape == (len(rollout),)
        return
    judged = signal.judged
    assert torch.allclose(signal.by_token.sum(1)[judged], signal.total[judged], atol=1e-4)
    past = torch.arange(rollout.tokens.shape[1]) >= rollout.lengths[:, None]
    assert not (signal.by_token[judged] * past[judged]).any()


class Fixed(Reward):
    """These numbers, whatever was said."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = torch.tensor(numbers)

    def score(self, rollout):
        return RewardSignal(self.numbers)


@pytest.mark.parametrize("normaliser", [Standardise, BatchStandardise])
@scored
def test_normalised_beside_a_reward_of_another_scale(name, reward, normaliser):
    """Masked rows have no say, equal rewards are not blown up, and raw and normalised numbers are logged."""
    skip_without_its_program(name)
    rollout = example_rollout()
    signals = [judge(reward, rollout)]
    for wrapped in (
        Sum({"one": reward, "big": Fixed([1e3, 2e3, torch.nan, 4e3, 5e3, 6e3])}, normalise={"big": normaliser()}),
        Sum({"one": reward, "big": Fixed([1e3] * 6)}, normalise={"big": normaliser()}),
    ):
        wrapped.train()
        signals.append(judge(wrapped, rollout))
    raw, mixed, equal = signals
    known = raw.judged & (torch.arange(len(rollout)) != 2)
    assert mixed.judged.tolist() == known.tolist()
    assert mixed.parts["big/normalised"][[0, 1, 3, 4, 5]].abs().max() < 3
    assert torch.allclose(mixed.parts["one"].nan_to_num(), raw.total.nan_to_num(), atol=1e-5)
    assert equal.parts["big/normalised"].abs().max() < 1e-3
    assert {"one", "big", "big/normalised"} <= set(mixed.parts)


@scored
def test_what_may_be_scored_in_another_thread_draws_nothing_and_does_not_learn(name, reward):
    if name in CANNOT_JUDGE_HERE or not reward.concurrent:
        pytest.skip(f"{name} is scored in its turn, or cannot judge here")
    rollout = replace(example_rollout(), reference_logprobs=None)

    def state():
        of_python = None if name in MAKES_ROLLOUTS else random.getstate()
        return of_python, np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = state()
    judge(reward, rollout)
    assert before == state()
    assert not list(reward.parameters())


def test_a_reward_around_others_may_be_scored_in_another_thread_where_all_of_them_may():
    def fine():
        return build("rewards", "BLEU")

    assert fine().concurrent
    assert Sum({"a": fine(), "b": build("rewards", "Length")}).concurrent
    assert not Sum({"a": fine(), "b": build("rewards", "KLPenalty")}).concurrent
    assert not Sum({"a": fine()}, normalise={"a": Standardise()}).concurrent  # adds up over ranks
    assert Guard(fine()).concurrent
    assert not Guard(build("rewards", "KLPenalty")).concurrent
    assert not Guard(fine(), normalise=BatchStandardise()).concurrent

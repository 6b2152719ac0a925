"""The kit passes a policy that keeps the contract and names the property that a broken one breaks."""

import re
from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import Policy, State
from lrl_core.testing.policies import (
    Case,
    bound,
    check_causality,
    check_policy,
    example_facts,
    example_prompts,
    example_tokenizer,
    random_rollout,
)
from lrl_core.types import PolicyOutput
from lrl_core.vocab import Head

TOKENIZER = example_tokenizer(9)
PROMPTS = example_prompts(TOKENIZER)
FACTS = example_facts(TOKENIZER, PROMPTS)


class Sums(State):
    def __init__(self, total):
        self.total = total

    def select(self, rows):
        return Sums(self.total[rows])


class SumPolicy(Policy):
    """The state is the sum of the vectors of everything read: the smallest policy that reads prompt and episode."""

    def bind(self, facts):
        self.words = torch.nn.Embedding(len(facts.tokenizer), 6)
        self.output = torch.nn.Linear(6, len(facts.tokenizer))

    def first(self, prompts):
        real = torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None]
        return (self.words(prompts.tokens) * real[:, :, None]).sum(1)

    def sums(self, rollout):
        read = torch.nn.functional.pad(self.words(rollout.tokens)[:, :-1], (0, 0, 1, 0))
        return self.first(rollout.prompts)[:, None] + read.cumsum(1)

    def forward(self, rollout):
        return PolicyOutput(rollout, self.sums(rollout).tanh(), Head(self.output.weight, self.output.bias))

    def begin(self, prompts):
        total = self.first(prompts)
        return self.output(total.tanh()), Sums(total)

    def step(self, tokens, state):
        total = state.total + self.words(tokens)
        return self.output(total.tanh()), Sums(total)


class ShiftedByOne(SumPolicy):
    def sums(self, rollout):
        return self.first(rollout.prompts)[:, None] + self.words(rollout.tokens).cumsum(1)


class ReadsPromptPadding(SumPolicy):
    def first(self, prompts):
        return self.words(prompts.tokens).sum(1)


class ReadsEpisodePadding(SumPolicy):
    def sums(self, rollout):
        return super().sums(rollout) + 0.01 * (rollout.tokens[:, 5:] != 0).sum(1)[:, None, None]


class ReadsNeighbours(SumPolicy):
    def first(self, prompts):
        first = super().first(prompts)
        return first + first.mean(0)


class ReadsAhead(SumPolicy):
    def sums(self, rollout):
        return super().sums(rollout) + 0.1 * self.words(rollout.tokens).sum(1, keepdim=True)


class FrozenSelect(SumPolicy):
    class Stuck(Sums):
        def select(self, rows):
            return FrozenSelect.Stuck(self.total[: len(rows)] if len(rows) <= len(self.total) else self.total[rows])

    def begin(self, prompts):
        logits, state = super().begin(prompts)
        return logits, self.Stuck(state.total)

    def step(self, tokens, state):
        logits, after = super().step(tokens, state)
        return logits, self.Stuck(after.total)


class OtherTemperature(SumPolicy):
    """Scores as if the temperature were 1: what a loss on the plain softmax does."""

    def forward(self, rollout):
        return super().forward(replace(rollout, sampling=None))


class ChangesMode(SumPolicy):
    def begin(self, prompts):
        self.eval()
        return super().begin(prompts)


class DropoutInEval(SumPolicy):
    def first(self, prompts):
        return torch.nn.functional.dropout(super().first(prompts), 0.5, training=True)


class UnusedWeights(SumPolicy):
    def bind(self, facts):
        super().bind(facts)
        self.spare = torch.nn.Linear(2, 2)


class Forgets(SumPolicy):
    """Keeps a number outside its state dict."""

    def bind(self, facts):
        super().bind(facts)
        self.offset = torch.randn(6)

    def first(self, prompts):
        return super().first(prompts) + self.offset


class TooManyLogits(SumPolicy):
    def bind(self, facts):
        super().bind(facts)
        self.output = torch.nn.Linear(6, len(facts.tokenizer) + 2)


class NotANumber(SumPolicy):
    def first(self, prompts):
        return super().first(prompts) / (prompts.lengths != 5)[:, None] * (prompts.lengths != 5)[:, None]


def test_a_policy_that_keeps_the_contract_passes():
    check_policy(SumPolicy, FACTS, PROMPTS)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (ShiftedByOne, r"step after begin must equal forward: row \d, token 0: -?[\d.]+, expected -?[\d.]+"),
        (ReadsPromptPadding, "prompt padding must not change forward"),
        (ReadsEpisodePadding, "episode padding must not change forward"),
        (ReadsNeighbours, r"forward of row \d must not depend on other rows"),
        (FrozenSelect, r"state.select\(\[.*\]\) after 0 tokens must go on"),
        (OtherTemperature, r"importance ratio of a fresh rollout must be 1 under Sampling\(temperature=0.7"),
        (ChangesMode, "train/eval mode"),
        (DropoutInEval, "must"),
        (UnusedWeights, r"no gradient reaches \['spare.bias', 'spare.weight'\]"),
        (Forgets, "state_dict must carry every number"),
        (TooManyLogits, re.escape("[B T V] is [5, 5, 15], expected [5, 5, 13]")),
        (NotANumber, re.escape("NaN in rows [2]")),
    ],
)
def test_a_broken_policy_is_named_with_what_it_breaks(broken, complaint):
    with pytest.raises(AssertionError, match=f"{broken.__name__}: .*{complaint}"):
        check_policy(broken, FACTS, PROMPTS)


def test_a_policy_that_reads_ahead_is_named():
    policy = bound(ReadsAhead, FACTS, seed=0)
    rollout = random_rollout(PROMPTS, TOKENIZER, 4)
    with pytest.raises(AssertionError, match="changing token 1 must not change what is before it"):
        check_causality(Case(policy, rollout, TOKENIZER, tolerance=1e-4))


def test_example_prompts_repeat_a_prompt_within_its_group():
    prompts = example_prompts(TOKENIZER, pictures="regions")
    same = [i for i, number in enumerate(prompts.group.tolist()) if number == 3]
    assert same == [1, 3]
    assert torch.equal(prompts.tokens[1], prompts.tokens[3])
    assert torch.equal(prompts.features["regions"][1], prompts.features["regions"][3])
    assert len(prompts.distinct()[0]) == 4

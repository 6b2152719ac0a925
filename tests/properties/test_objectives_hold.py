"""What every registered objective owes the update: a sum whose masks, order and micro-batches do not matter."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from registered import accepts, build, names
from torch import nn

from lrl_core.functional import Aggregation
from lrl_core.testing.parts import bigram_world, check_objective, full_experience
from lrl_core.types import PolicyOutput
from lrl_core.vocab import Head


def ways():
    """Every objective with every aggregation that it offers."""
    plain = [pytest.param(name, {}, id=name) for name in names("objectives")]
    return plain + [
        pytest.param(name, {"aggregation": mode, "length": 4}, id=f"{name}-{mode}")
        for name in names("objectives")
        for mode in get_args(Aggregation)
        if accepts("objectives", name, "aggregation")
    ]


every_way = pytest.mark.parametrize(("name", "options"), ways())


def gradient(objective, experience):
    policy, _ = bigram_world()
    (objective.loss(policy, experience).total / objective.count(experience).clamp(min=1)).sum().backward()
    return policy.table.grad


@every_way
def test_micro_batches_padding_and_unjudged_rows_change_nothing(name, options):
    check_objective(lambda: build("objectives", name, **options))


@every_way
def test_the_order_of_prompts_changes_nothing(name, options):
    experience = full_experience()
    groups = dict.fromkeys(experience.rollout.prompts.group.tolist())
    backwards = type(experience).cat([experience.of_groups({group}) for group in reversed(groups)])
    objective = build("objectives", name, **options)
    torch.manual_seed(0)
    first = gradient(objective, experience)
    torch.manual_seed(0)
    second = gradient(objective, backwards)
    assert torch.allclose(first, second, atol=1e-9)


class ByPosition(nn.Module):
    """Logits that depend on the place alone, so that the gradient shows which places were trained on."""

    def __init__(self, steps, vocabulary):
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocabulary, steps, dtype=torch.float64))

    def forward(self, rollout):
        steps = self.table.shape[1]
        hidden = torch.eye(steps, dtype=torch.float64).expand(len(rollout), steps, steps)
        return PolicyOutput(rollout, hidden, Head(self.table, None), eos=3, values=hidden.sum(2) * 0)


@every_way
def test_an_environments_words_are_not_trained_on(name, options):
    objective = build("objectives", name, **options)
    if not objective.samples:
        pytest.skip(f"{name} learns from human answers, where no environment speaks")
    experience = full_experience()
    mask = experience.rollout.action_mask.clone()
    mask[:, 1] = False
    value = torch.where(mask, experience.advantage.value, 0)
    experience = replace(
        experience,
        rollout=replace(experience.rollout, action_mask=mask),
        advantage=replace(experience.advantage, value=value),
        expert=replace(experience.expert, action_mask=experience.expert.action_mask & mask[[0, 2]]),
    )
    policy = ByPosition(4, 4)
    objective.loss(policy, experience).total.sum().backward()
    assert bool((policy.table.grad[:, 1] == 0).all())
    assert bool((policy.table.grad[:, 0] != 0).any())

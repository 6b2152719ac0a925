"""A transformer that has been shown mistakes takes its own back; one that has not has no reason to."""

import random
from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import TaskFacts
from lrl_core.masks import length_mask
from lrl_core.testing.toy import ToyTokenizer
from lrl_core.types import Experience, Prompts, Rollout
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.sequence_match import SequenceMatch
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.tasks.backspace import with_mistakes

A, B, EOS, BOS, BACK = range(5)
CONFIG = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 48, "resid_pdrop": 0.0,
          "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip


class Letters(ToyTokenizer):
    """a, b, the end, the beginning and the backspace."""

    pad, bos, backspace = BOS, BOS, BACK
    never_drawn = (BOS,)


def prompts(rows, targets=None, learnt=None):
    """The beginning alone is read; the answers alternate between a and b."""
    answers = {}
    if targets is not None:
        lengths = torch.tensor([len(line) for line in targets])
        wide = int(lengths.max())
        answers = {
            "targets": torch.tensor([[*line, *[BOS] * (wide - len(line))] for line in targets]),
            "target_lengths": lengths,
            "target_mask": torch.tensor([[*own, *[False] * (wide - len(own))] for own in learnt]),
        }
    ones = torch.ones(rows, dtype=torch.long)
    return Prompts(ones[:, None] * BOS, ones, torch.arange(rows), **answers)


def alternating(chance, noise, rows=24):
    """Human answers abab.. and baba.. of 4 to 8 letters, with mistakes."""
    made = []
    for _ in range(rows):
        first = chance.randrange(2)
        right = [(first + i) % 2 for i in range(chance.randrange(4, 9))] + [EOS]
        made.append(with_mistakes(right, noise, (A, B), BACK, chance))
    return Rollout.of_targets(prompts(rows, *zip(*made, strict=True)))


def trained(objective, noise, steps, policy=None):
    """A tiny language model after so many steps."""
    torch.manual_seed(0)
    facts = TaskFacts(Letters(5, eos=EOS), (), prompts(2))
    if policy is None:
        policy = CausalLM(config=CONFIG)
        policy.bind(facts)
    decoder, chance = Sample(max_length=14), random.Random(0)
    for part in (decoder, objective):
        part.bind(facts)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for _ in range(steps):
        expert = alternating(chance, noise)
        with torch.no_grad():
            drawn = decoder.decode(policy.eval(), prompts(24)) if objective.samples else None
        experience = Experience(rollout=drawn, expert=expert)
        optimizer.zero_grad()
        (objective.loss(policy, experience).total / objective.count(experience).clamp(min=1)).sum().backward()
        optimizer.step()
    return policy.eval()


@torch.no_grad()
def takes_back(policy):
    """Chance of a backspace after a letter that is right, and after one that is not."""
    read = Rollout.of_targets(prompts(2, [[A, B, A, BACK], [A, B, B, BACK]], [[True] * 4] * 2))
    return policy(read).logprobs[:, 3].exp().tolist()


def test_cloning_mistakes_that_are_taken_back_teaches_to_take_them_back(shapes_unchecked):
    right, wrong = takes_back(trained(CrossEntropy(), 0.2, 140))
    assert right < 0.1
    assert wrong > 0.5


def test_maximum_likelihood_of_clean_lines_does_not(shapes_unchecked):
    _, wrong = takes_back(trained(CrossEntropy(), 0.0, 60))
    assert wrong < 0.1


@pytest.mark.slow
def test_sequence_match_takes_back_what_is_wrong(shapes_unchecked):
    start = trained(CrossEntropy(), 0.2, 60)
    right, wrong = takes_back(trained(SequenceMatch(alpha=2.0), 0.2, 150, start))
    assert right < 0.1
    assert wrong > 0.5


def test_the_line_after_a_mistake_is_read_as_if_it_had_never_been(shapes_unchecked):
    policy = trained(CrossEntropy(), 0.2, 3)
    clean, noisy = [A, B, A, EOS], [A, B, B, BACK, A, EOS]
    read = Rollout.of_targets(prompts(2, [clean, noisy], [[True] * 4, [True] * 6]))
    assert bool(length_mask(read.lengths, 6)[1].all())
    logprobs = policy(read).logprobs
    assert torch.allclose(logprobs[0, [0, 1, 2, 3]], logprobs[1, [0, 1, 4, 5]], atol=1e-5)
    objective = SequenceMatch()
    objective.bind(TaskFacts(Letters(5, eos=EOS), (), prompts(2)))
    drawn = replace(read, action_mask=length_mask(read.lengths, 6))
    metrics = objective.loss(policy, Experience(rollout=drawn, expert=read)).metrics
    assert metrics["deletions/model"].item() == pytest.approx(1 / 10)

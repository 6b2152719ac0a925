from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from lrl_core.interfaces import bind_all
from lrl_core.testing.parts import EOS, answered_prompts, bigram_world, check_decoder
from lrl_core.testing.toy import TREE_REWARD, TREE_TABLE, ToyTokenizer, toy_facts, toy_prompts, tree_world
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.decoders.teacher_forced import TeacherForced


def bound(decoder, size=4, eos=EOS):
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=eos)))
    return decoder


@pytest.mark.parametrize("start", [0, 1, 2, 9])
def test_conforms(start):
    check_decoder(lambda: TeacherForced(Sample(max_length=8, samples=3, top_k=3), start=start))


def test_forces_less_from_stage_to_stage():
    decoder = TeacherForced(start=6, step=2, epochs_per_stage=5, stop=1)
    forced = {}
    for epoch in (99, 0, 4, 5, 9, 10, 14, 15, 1):  # in any order: no state
        decoder.begin_epoch(epoch)
        forced[epoch] = decoder.forced
    assert forced == {0: 6, 1: 6, 4: 6, 5: 4, 9: 4, 10: 2, 14: 2, 15: 1, 99: 1}


def test_begins_with_the_human_answer_which_is_no_action():
    decoder = bound(TeacherForced(Sample(max_length=8, samples=2), start=2, step=1))
    torch.manual_seed(0)
    rollout = decoder.decode(bigram_world()[0], answered_prompts())
    assert rollout.tokens[:, :2].tolist() == [[0, 1]] * 2 + [[2, EOS]] * 2 + [[1, 2]] * 2
    assert not rollout.action_mask[:, :2].any()
    assert rollout.action_mask[[0, 1, 4, 5], 2].all()
    assert rollout.lengths[2:4].tolist() == [2, 2]  # an answer that is forced to its end is a whole episode
    assert rollout.terminated[2:4].all()
    assert not rollout.action_mask[2:4].any()


def test_with_nothing_forced_it_is_the_inner_decoder():
    policy, prompts = bigram_world()[0], answered_prompts()
    torch.manual_seed(0)
    forced = bound(TeacherForced(Sample(max_length=8), start=0)).decode(policy, prompts)
    torch.manual_seed(0)
    assert bound(Sample(max_length=8)).decode(policy, prompts).tokens.equal(forced.tokens)


def test_the_suffix_gradient_is_the_exact_conditional_one():
    policy, reward = tree_world()
    prompts = replace(toy_prompts(), targets=torch.tensor([[1, 0]]), target_lengths=torch.tensor([2]))
    decoder = bound(TeacherForced(Sample(max_length=2, samples=40_000), start=1), 3, -1)
    torch.manual_seed(0)
    rollout = decoder.decode(policy, prompts)
    second = torch.tensor(TREE_TABLE[2], dtype=torch.float64).softmax(0)  # after token 1
    counts = np.bincount(rollout.tokens[:, 1].numpy(), minlength=3)
    assert chisquare(counts, second.numpy() * 40_000).pvalue > 1e-3
    pays = torch.tensor(TREE_REWARD[1], dtype=torch.float64)
    (policy(rollout).logprobs.sum(1) * reward.score(rollout).total).mean().backward()
    exact = second * (pays - (second * pays).sum())
    assert policy.table.grad[[0, 1, 3]].abs().max() == 0  # nothing is taught about the forced token
    assert torch.allclose(policy.table.grad[2], exact, atol=0.02)
    assert exact.abs().max() > 0.2


def test_its_rival_is_greedy_and_not_forced():
    decoder = bound(TeacherForced(Sample(max_length=8, samples=3), start=2))
    policy, prompts = bigram_world()[0], answered_prompts()
    rival = decoder.greedy().decode(policy, prompts)
    assert rival.tokens.equal(bound(Greedy(max_length=8)).decode(policy, prompts).tokens)
    assert decoder.draws
    assert decoder.samples == 3


def test_prompts_without_answers_are_refused():
    with pytest.raises(ValueError, match=r"prompts without a human answer; expected Prompts.targets"):
        bound(TeacherForced(start=2)).decode(bigram_world()[0], toy_prompts())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TeacherForced(BeamSearch()), "got the decoder BeamSearch; expected one that draws"),
        (lambda: TeacherForced(Greedy()), "got the decoder Greedy; expected one that draws"),
        (lambda: TeacherForced(Sample(constraints=Constraints(opening="a"))), "forces the opening 'a' already"),
        (lambda: TeacherForced(start=1, stop=2), "expected start >= stop"),
        (lambda: TeacherForced(epochs_per_stage=0), "epochs_per_stage 0"),
    ],
)
def test_refuses_what_cannot_be_forced(make, message):
    with pytest.raises(ValueError, match=message):
        make()

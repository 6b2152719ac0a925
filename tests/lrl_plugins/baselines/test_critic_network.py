"""What a critic is shown in place of the prompt, and the small network that reads it."""

from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.testing.parts import EOS
from lrl_core.testing.policies import example_facts, example_prompts, example_tokenizer, random_rollout
from lrl_core.testing.toy import ToySampler, ToyTokenizer, toy_facts
from lrl_core.types import Prompts, RewardSignal
from lrl_plugins.baselines.critic import Critic
from lrl_plugins.baselines.critic_network import AttentionReader, shown
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.policies.recurrent import Recurrent

TOKENIZER = example_tokenizer()


def episodes(targets=((5, 6, 2, 0), (7, 2, 0, 0), (5, 6, 2, 0), (8, 9, 5, 2), (6, 2, 0, 0))):
    prompts = example_prompts(TOKENIZER)
    answers = torch.tensor(targets)
    lengths = (answers == TOKENIZER.eos).int().argmax(1) + 1
    prompts = replace(prompts, targets=answers, target_lengths=lengths)
    return random_rollout(prompts, TOKENIZER, 4)


def reader():
    torch.manual_seed(0)
    network = AttentionReader(6, 8)
    network.bind(example_facts(TOKENIZER, example_prompts(TOKENIZER)))
    torch.nn.init.normal_(network.output.weight)
    return network


def values(network, rollout):
    """A number of every place that depends on the whole output row."""
    with torch.no_grad():
        return network(rollout).over_vocabulary(lambda logprobs: logprobs[:, 5] - 2 * logprobs[:, 7])


def test_answers_take_the_prompts_place_and_rows_are_one_prompt_only_if_both_agree():
    rollout = episodes()
    seen = shown(rollout, "answer", 2).prompts
    assert seen.tokens.equal(rollout.prompts.targets)
    assert seen.lengths.equal(rollout.prompts.target_lengths)
    # Rows 1 and 3 are one prompt with different answers; rows 0 and 2 are two prompts with the same answer.
    assert rollout.prompts.group.tolist() == [7, 3, 9, 3, 5]
    assert len(set(seen.group.tolist())) == 5
    twice = shown(episodes(((7, 2, 0, 0),) * 5), "answer", 2).prompts
    assert twice.group[1] == twice.group[3]
    assert shown(rollout, "prompt", 2) is rollout


def test_both_stand_one_after_the_other():
    prompts = Prompts(
        tokens=torch.tensor([[4, 5, 6], [7, 9, 9]]),
        lengths=torch.tensor([3, 1]),
        group=torch.tensor([0, 1]),
        targets=torch.tensor([[8, 2], [5, 6]]),
        target_lengths=torch.tensor([1, 2]),
    )
    seen = shown(random_rollout(prompts, TOKENIZER, 2), "both", 2).prompts
    lines = [seen.tokens[row, :length].tolist() for row, length in enumerate(seen.lengths.tolist())]
    assert lines == [[4, 5, 6, 2, 8], [7, 2, 5, 6]]


@pytest.mark.parametrize("network", [None, lambda: Recurrent(cell="gru", embedding=5, hidden=7)])
def test_the_answer_alone_decides_what_the_critic_expects(network):
    """The key trick: the same episode is worth something else where another answer was right."""
    torch.manual_seed(0)
    critic = Critic(network and network(), embedding=4, hidden=6)
    rollout = episodes()
    bind_all(critic, example_facts(TOKENIZER, rollout.prompts))
    if network is None:
        torch.nn.init.normal_(critic.network.output.weight)
    policy = Recurrent(embedding=4, hidden=4)
    bind_all(policy, example_facts(TOKENIZER, rollout.prompts))
    sampler = ToySampler(policy, Sample(), None)

    def said(rollout):
        return critic.advantage(rollout, RewardSignal(torch.ones(len(rollout))), sampler).values

    before = said(rollout)
    prompts = rollout.prompts
    others = prompts.targets.clone()
    others[1, 0] = 9
    changed = said(replace(rollout, prompts=replace(prompts, targets=others)))
    rows = (changed != before).any(1)
    assert rows.tolist() == [False, True, False, False, False]
    elsewhere = prompts.tokens.flip(1).masked_fill(torch.ones_like(prompts.tokens).bool(), 5)
    assert torch.allclose(said(replace(rollout, prompts=replace(prompts, tokens=elsewhere))), before, atol=1e-6)


def test_it_reads_no_padding_and_nothing_that_is_still_to_come():
    network, rollout = reader(), shown(episodes(), "answer", 2)
    before = values(network, rollout)
    wider = torch.nn.functional.pad(rollout.prompts.tokens, (0, 3), value=5)
    padded = replace(rollout, prompts=replace(rollout.prompts, tokens=wider))
    assert torch.allclose(values(network, padded), before, atol=1e-5)
    tokens = rollout.tokens.clone()
    tokens[:, 2] = 4 + (tokens[:, 2] + 1) % 10
    after = values(network, replace(rollout, tokens=tokens))
    assert torch.allclose(after[:, :3], before[:, :3], atol=1e-6)
    assert not torch.allclose(after[:, 3], before[:, 3], atol=1e-3)


def test_a_row_does_not_depend_on_its_neighbours():
    network, rollout = reader(), shown(episodes(), "answer", 2)
    alone = torch.cat([values(network, rollout.select(torch.tensor([row]))) for row in range(5)])
    assert torch.allclose(alone, values(network, rollout), atol=1e-5)


def test_the_first_token_already_has_what_is_shown():
    network, rollout = reader(), shown(episodes(), "answer", 2)
    turned = replace(rollout.prompts, tokens=torch.where(rollout.prompts.tokens == 5, 10, rollout.prompts.tokens))
    first = (values(network, replace(rollout, prompts=turned)) - values(network, rollout))[:, 0].abs() > 1e-4
    assert first.tolist() == [True, False, True, True, False]


def test_it_begins_at_nothing_and_needs_no_prompt():
    network = AttentionReader(4, 6)
    network.bind(toy_facts(ToyTokenizer(4, eos=EOS)))
    empty = Prompts(torch.zeros(2, 0).long(), torch.zeros(2).long(), torch.arange(2))
    rollout = random_rollout(empty, ToyTokenizer(4, eos=EOS), 3)
    output = network(rollout)
    assert output.estimate(lambda hidden: output.head.logits(hidden).abs().sum(1)).abs().max() == 0
    assert output.estimate(lambda hidden: hidden.abs().sum(1))[rollout.action_mask].min() > 0

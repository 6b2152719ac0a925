import pytest
import torch

from lrl_core.testing.policies import (
    bound,
    check_policy,
    example_facts,
    example_prompts,
    example_tokenizer,
    random_rollout,
)
from lrl_core.testing.toy_task import ToyTask
from lrl_plugins.policies.recurrent import Recurrent

TOKENIZER = example_tokenizer()


@pytest.mark.parametrize("pictures", [None, "regions"])
@pytest.mark.parametrize("lengths", [(0, 0, 0, 0, 0), (3, 1, 0, 1, 4)], ids=["empty", "asked"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_conforms(cell, lengths, pictures):
    prompts = example_prompts(TOKENIZER, lengths, pictures=pictures)
    facts = example_facts(TOKENIZER, prompts)
    check_policy(lambda: Recurrent(cell, 8, 12, layers=2, dropout=0.3), facts, prompts)


def test_conforms_with_tied_words():
    prompts = example_prompts(TOKENIZER)
    check_policy(lambda: Recurrent(embedding=8, hidden=8, tie=True), example_facts(TOKENIZER, prompts), prompts)


def test_numbers_are_those_of_a_cell_that_reads_prompt_begin_token_and_episode():
    prompts = example_prompts(TOKENIZER, (3, 1, 0, 1, 4))
    policy = bound(lambda: Recurrent("lstm", 8, 12), example_facts(TOKENIZER, prompts), seed=0)
    cell = torch.nn.LSTMCell(8, 12)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in policy.cells.state_dict().items()})
    rollout = random_rollout(prompts, TOKENIZER, 4)
    got = policy(rollout).logprobs
    for row in range(len(prompts)):
        memory = None
        for token in [*prompts.tokens[row, : prompts.lengths[row]], torch.tensor(TOKENIZER.bos)]:
            memory = cell(policy.words(token[None]), memory)
        for t in range(int(rollout.lengths[row])):
            token = rollout.tokens[row, t]
            expected = policy.output(memory[0]).log_softmax(1)[0, token]
            torch.testing.assert_close(got[row, t], expected, atol=1e-5, rtol=1e-5)
            memory = cell(policy.words(token[None]), memory)


def test_features_are_a_mean_over_real_regions():
    prompts = example_prompts(TOKENIZER, (0, 0, 0, 0, 0), pictures="regions")
    policy = bound(lambda: Recurrent("gru", 8, 12), example_facts(TOKENIZER, prompts), seed=0)
    pooled = policy._pooled(prompts)
    for row, length in enumerate(prompts.features["region_lengths"].tolist()):
        torch.testing.assert_close(pooled[row], prompts.features["regions"][row, :length].mean(0))


def test_refusals_name_the_cause(shapes_unchecked):
    with pytest.raises(ValueError, match="tie: false"):
        Recurrent(embedding=8, hidden=12, tie=True)
    with pytest.raises(ValueError, match="'lstm' or 'gru'"):
        Recurrent(cell="rnn")
    seen = example_prompts(TOKENIZER, pictures="regions")
    policy = bound(lambda: Recurrent("gru", 8, 12), example_facts(TOKENIZER, seen), seed=0)
    with pytest.raises(ValueError, match="expected 'regions'"):
        policy.begin(example_prompts(TOKENIZER))


def test_weights_can_begin_as_spread_as_is_asked():
    policy = Recurrent(embedding=40, hidden=40, spread=0.1)
    policy.bind(ToyTask().facts())
    every = torch.cat([weight.detach().flatten() for weight in policy.parameters()])
    assert abs(float(every.std()) - 0.1) < 0.003
    with pytest.raises(ValueError, match="spread is 0"):
        Recurrent(spread=0)

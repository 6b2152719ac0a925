import math

import pytest
import torch
from ranked_answers import BERT, GPT2, TOKENIZER

from lrl_plugins.rewards.preference_network import PreferenceNetwork, fresh_head, last_real, pool_states
from lrl_plugins.text_models import load_trunk

torch.set_num_threads(1)


def test_the_last_real_token():
    """[5, 7, EOS, PAD, PAD] -> 2; nothing padded -> the last; all padded -> 0; padding in front does not matter."""
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 0]]).bool()
    assert last_real(mask).tolist() == [2, 4, 0, 3]


def test_pooling_by_hand():
    states = torch.arange(12.0).view(1, 6, 2).expand(2, 6, 2)
    mask = torch.tensor([[True, True, True, False, False, False], [False, True, True, False, False, False]])
    assert pool_states(states, mask, "last").tolist() == [[4, 5], [4, 5]]
    assert pool_states(states, mask, "first").tolist() == [[0, 1], [2, 3]]
    assert pool_states(states, mask, "mean").tolist() == [[2, 3], [3, 4]]


def test_the_head_is_drawn_with_variance_one_over_width_and_one():
    torch.manual_seed(0)
    heads = torch.stack([fresh_head(63).weight for _ in range(400)])
    assert heads.std().item() == pytest.approx(1 / math.sqrt(64), rel=0.02)
    assert fresh_head(63).bias.item() == 0


@pytest.mark.parametrize(("model", "pool"), [(GPT2, "last"), (BERT, "mean")])
@pytest.mark.parametrize("learns", [True, False])
def test_auto_pools_what_has_seen_the_whole_text(model, pool, learns):
    network = PreferenceNetwork(load_trunk("test", model, TOKENIZER), "auto", learns)
    assert network.pool == pool
    ids = torch.tensor([[4, 5, 6, 7, 0]])
    mask = ids > 0
    scores = network(ids, mask)
    for place in range(4):  # every word counts, padding does not
        other = ids.clone()
        other[0, place] = 9
        assert not torch.allclose(network(other, mask), scores, atol=1e-6)
    assert torch.allclose(network(ids[:, :4], mask[:, :4]), scores, atol=1e-6)

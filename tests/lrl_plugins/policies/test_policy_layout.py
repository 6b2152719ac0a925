import pytest
import torch

from lrl_core.masks import length_mask
from lrl_plugins.policies.layout import Prefix, begin_with, lay_out, trimmed_mask

PREFIX = Prefix(torch.tensor([[9, 1, 2, 3], [9, 4, 0, 0]]), torch.tensor([4, 2]))
EPISODE, LENGTHS = torch.tensor([[5, 6], [7, 0]]), torch.tensor([3, 1])


def test_left_layout_by_hand():
    line = lay_out(PREFIX, EPISODE, LENGTHS, "left")
    assert line.tokens.tolist() == [[9, 1, 2, 3, 5, 6], [9, 9, 9, 4, 7, 9]]
    assert line.mask.tolist() == [[True] * 6, [False, False, True, True, True, True]]
    assert line.positions.tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3]]
    assert line.before == 3


def test_right_layout_by_hand():
    line = lay_out(PREFIX, EPISODE, LENGTHS, "right")
    assert line.tokens.tolist() == [[9, 1, 2, 3, 5, 6], [9, 4, 7, 9, 9, 9]]
    assert line.mask is None
    assert line.positions is None
    assert line.before.tolist() == [3, 1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_state_before_a_token_stands_on_the_token_before_it(side):
    line = lay_out(PREFIX, EPISODE, LENGTHS, side)
    states = line.tokens[:, :, None].float()  # the state of a column is its token
    assert line.align(states, 3)[0, :, 0].tolist() == [3, 5, 6]
    assert line.align(states, 2)[1, :, 0].tolist() == [4, 7]


@pytest.mark.parametrize("side", ["left", "right"])
def test_equal_prefixes_need_no_mask_and_shared_padding_is_cut(side):
    prefix = Prefix(torch.tensor([[9, 1, 0], [9, 4, 0]]), torch.tensor([2, 2]))
    line = lay_out(prefix, EPISODE, LENGTHS, side)
    assert line.tokens.tolist() == [[9, 1, 5, 6], [9, 4, 7, 9]]
    assert line.mask is None
    assert not line.uneven
    assert line.before == 1


def test_small_helpers():
    assert length_mask(torch.tensor([0, 2]), 3).tolist() == [[False] * 3, [True, True, False]]
    assert trimmed_mask(torch.tensor([2, 2])) == (2, None)
    longest, mask = trimmed_mask(torch.tensor([1, 2]))
    assert (longest, mask.tolist()) == (2, [[True, False], [True, True]])
    prefix = begin_with(7, torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0]))
    assert prefix.tokens.tolist() == [[7], [7]]
    assert prefix.lengths.tolist() == [1, 1]

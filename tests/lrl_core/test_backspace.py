import pytest
import torch

from lrl_core.backspace import follows_of, kept

BACK = 9


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, BACK, 3], [1, 3]),
        ([1, 2, BACK, BACK, 3], [3]),
        ([BACK, BACK, 1], [1]),  # nothing is left to take back
        ([1, BACK, BACK, BACK, 2, 3, BACK], [2]),
        ([], []),
    ],
)
def test_what_is_left(line, left):
    assert kept(line, BACK) == left


def test_without_a_backspace_every_token_stays():
    assert kept([1, BACK, 2], None) == [1, BACK, 2]


def test_a_token_follows_the_last_one_that_is_left_before_it():
    """a b c <back> d e, <back> first, two in a row; and padding."""
    tokens = torch.tensor([[1, 2, 3, BACK, 4, 5], [BACK, 1, 2, BACK, BACK, 3], [1, BACK, 2, 0, 0, 0]])
    follows = follows_of(tokens, torch.tensor([6, 6, 3]), BACK)
    assert follows.tolist() == [[-1, 0, 1, 2, 1, 4], [-1, -1, 1, 2, 1, -1], [-1, 0, -1, 2, 3, 4]]


def test_plain_lines_follow_the_token_before():
    tokens, lengths = torch.randint(0, BACK, (3, 5)), torch.tensor([5, 0, 2])
    assert follows_of(tokens, lengths, BACK).tolist() == [[-1, 0, 1, 2, 3]] * 3


def test_every_token_comes_after_its_ancestors():
    torch.manual_seed(0)
    tokens = torch.randint(BACK - 3, BACK + 1, (20, 12))
    follows = follows_of(tokens, torch.full((20,), 12), BACK)
    assert (follows < torch.arange(12)).all()
    assert (follows >= -1).all()
    assert not (tokens.gather(1, follows.clamp(min=0)) == BACK)[follows >= 0].any()


def test_empty_batches():
    assert follows_of(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, dtype=torch.long), BACK).shape == (2, 0)

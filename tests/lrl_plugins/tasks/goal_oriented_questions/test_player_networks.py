"""The networks of learned players: what they see of objects, and that padding does not matter."""

import pytest
import torch

from lrl_plugins.tasks.goal_oriented_questions.networks import (
    GuesserNetwork,
    Objects,
    OracleNetwork,
    Sizes,
    objects_of,
    place_of,
)
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable

SIZES = Sizes(words=6, hidden=8, categories=5)
CPU = torch.device("cpu")


def objects(*present, seed=0):
    there = torch.tensor(present, dtype=torch.bool)
    draw = torch.Generator().manual_seed(seed)
    return Objects(torch.randint(1, 4, there.shape, generator=draw), torch.rand(*there.shape, 8, generator=draw), there)


def test_places_by_hand():
    # a box from the middle to the right edge, in the upper half
    assert place_of((0.5, 0.0, 0.5, 0.5)) == (0.0, -1.0, 1.0, 0.0, 0.5, -0.5, 1.0, 1.0)
    assert place_of((0.0, 0.0, 1.0, 1.0)) == (-1, -1, 1, 1, 0, 0, 2, 2)
    assert place_of(None) == (0.0,) * 8


def test_objects_of_games_of_different_sizes():
    world, small = AttributeTable(), AttributeTable(objects_per_game=3)
    numbers = {name: i for i, name in enumerate(world.table.items[:7], start=1)}
    large, few = world.games("train")[2], small.games("train")[2]
    seen = objects_of(world, [large, few], numbers, CPU)
    assert seen.categories[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 0]  # the eighth is not known
    assert seen.categories[1, :3].tolist() == [numbers.get(name, 0) for name in few.objects]
    assert seen.present.sum(1).tolist() == [8, 3]
    assert not seen.present[1, 3:].any()
    one = seen.at(torch.tensor([large.hidden, few.hidden]))
    assert one.categories.tolist() == [[3], [3]]  # both hide the third of the table


@pytest.mark.parametrize("seed", range(3))
def test_an_object_that_is_not_there_is_never_guessed(seed):
    torch.manual_seed(seed)
    network = GuesserNetwork(9, 1, 3, SIZES)
    tokens, lengths = torch.randint(0, 9, (3, 4)), torch.tensor([4, 2, 0])
    seen = objects((1, 1, 1), (1, 1, 0), (0, 0, 1), seed=seed)
    chances = network(tokens, lengths, seen)
    assert chances[~seen.present].eq(-torch.inf).all()
    assert chances[2].tolist() == [-torch.inf, -torch.inf, 0]
    assert chances.exp().sum(1).allclose(torch.ones(3))
    narrow = Objects(seen.categories[1:2, :2], seen.places[1:2, :2], seen.present[1:2, :2])
    assert network(tokens[1:2, :2], lengths[1:2], narrow).allclose(chances[1:2, :2], atol=1e-6)
    # with a pull towards what fills up, which would win a softmax that forgot the mask
    pull = Objects(seen.categories, torch.where(seen.present[:, :, None], seen.places, 1e6), seen.present)
    assert network(tokens, lengths, pull).allclose(chances)


def test_gradients_are_finite_beside_padding():
    torch.manual_seed(0)
    network = GuesserNetwork(9, 1, 3, SIZES)
    chances = network(torch.randint(0, 9, (2, 3)), torch.tensor([3, 1]), objects((1, 0, 0), (1, 1, 0)))
    torch.nn.functional.nll_loss(chances, torch.tensor([0, 1])).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_what_stands_behind_a_line_is_not_read():
    torch.manual_seed(0)
    oracle = OracleNetwork(9, 1, 3, SIZES)
    tokens, lengths = torch.randint(0, 9, (2, 5)), torch.tensor([3, 5])
    other = tokens.clone()
    other[0, 3:] = 8 - other[0, 3:]
    hidden = objects((1,), (1,))
    said = oracle(tokens, lengths, hidden)
    assert said.equal(oracle(other, lengths, hidden))
    assert said.exp().sum(1).allclose(torch.ones(2))
    other[0, 2] = 8 - other[0, 2] if other[0, 2] != 4 else 5
    assert not said[0].allclose(oracle(other, lengths, hidden)[0])
    assert not said.allclose(oracle(tokens, lengths, objects((1,), (1,), seed=1)))

import pytest
import torch

from lrl_core.metrics.embeddings import greedy_match
from lrl_plugins.rewards.greedy_matching import Embedded, Match, best_matches, compared

torch.set_num_threads(1)
CPU = torch.device("cpu")
SIMILARITY = torch.tensor([[[0.9, 0.2, 0.1], [0.3, 0.8, 0.4]]])


def embedded(length, generator, alike=1.0):
    """A text of so many tokens, some of which do not count."""
    vectors = torch.randn(length, 6, generator=generator).abs() * alike
    weights = torch.rand(length, generator=generator)
    weights[0] = 0
    return Embedded(torch.nn.functional.normalize(vectors, dim=-1), weights, length > 1)


def matches(alike=1.0):
    """Candidates and references of unequal lengths and numbers; `alike` = -1 makes all similarities negative."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, (5, 2, 9)), (8, (4,)), (2, (2, 2)), (5, (7, 7, 3, 1)), (3, (4, 6)), (30, (2, 40))]
    return [
        Match(embedded(said, generator), tuple(embedded(n, generator, alike) for n in known)) for said, known in sizes
    ]


def one_by_one(match):
    """The definition, one reference after the other."""
    rows = [
        greedy_match((match.said.vectors @ other.vectors.T)[None], match.said.weights[None], other.weights[None])
        for other in match.known
    ]
    return torch.cat(rows)


def test_golden_matching():
    ones = greedy_match(SIMILARITY, torch.ones(1, 2), torch.ones(1, 3))
    assert ones[0].tolist() == pytest.approx([0.85, 0.70, 0.767742], abs=1e-6)
    weighted = greedy_match(SIMILARITY, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0, 0.5]]))
    assert weighted[0].tolist() == pytest.approx([0.833333, 0.771429, 0.801187], abs=1e-6)


def test_padding_is_no_match():
    wide = torch.nn.functional.pad(SIMILARITY, (0, 1, 0, 1), value=1.0)
    padded = [torch.nn.functional.pad(torch.ones(1, n), (0, 1)) for n in (2, 3)]
    assert greedy_match(wide, *padded, *(p > 0 for p in padded))[0].tolist() == pytest.approx([0.85, 0.70, 0.767742])


@pytest.mark.parametrize("alike", [1.0, -1.0])
def test_all_references_at_once_are_as_one_by_one(alike):
    rows = matches(alike)
    got = compared([row.said for row in rows], [row.known for row in rows], CPU)
    assert got.shape == (6, 4, 3)
    for scores, row in zip(got, rows, strict=True):
        count = len(row.known)
        assert torch.allclose(scores[:count], one_by_one(row), atol=1e-6)
        assert (scores[count:] == -torch.inf).all()


@pytest.mark.parametrize("alike", [1.0, -1.0])
def test_the_best_of_each_and_no_matter_what_else_is_in_the_batch(alike):
    rows = matches(alike)
    expected = torch.stack([one_by_one(row).amax(0) for row in rows])
    assert torch.allclose(best_matches(rows, CPU), expected, atol=1e-6)
    assert torch.allclose(best_matches(rows[::-1] * 30, CPU), expected.flip(0).repeat(30, 1), atol=1e-6)
    assert torch.allclose(torch.cat([best_matches([row], CPU) for row in rows]), expected, atol=1e-6)

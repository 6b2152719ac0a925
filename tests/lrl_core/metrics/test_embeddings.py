"""How far apart texts are by their embeddings; greedy matching is tested beside the reward that uses it most."""

import pytest
import torch

from lrl_core.metrics.embeddings import embedding_diversity, greedy_match


def test_diversity_by_hand():
    x, y = [1.0, 0.0], [0.0, 2.0]
    assert embedding_diversity(torch.tensor([x, x, x])) == pytest.approx(0)
    assert embedding_diversity(torch.tensor([x, y])) == pytest.approx(1)
    assert embedding_diversity(torch.tensor([x, y, x])) == pytest.approx(1 - 1 / 3)  # cosines 0, 1 and 0
    assert embedding_diversity(torch.tensor([x, [-3.0, 0.0]])) == pytest.approx(2)
    with pytest.raises(ValueError, match="got 1 texts"):
        embedding_diversity(torch.tensor([x]))


def test_diversity_is_the_mean_over_all_pairs():
    torch.manual_seed(0)
    vectors = torch.randn(5, 7)
    pairs = [(i, j) for i in range(5) for j in range(i)]
    cosines = [torch.cosine_similarity(vectors[i], vectors[j], dim=0).item() for i, j in pairs]
    assert embedding_diversity(vectors) == pytest.approx(1 - sum(cosines) / len(pairs), abs=1e-6)


def test_greedy_matching_by_hand():
    """Precision (.9 + .4) / 2, recall (.9 + .2 + .4) / 3."""
    similarity = torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.0, 0.4]])
    precision, recall, f1 = greedy_match(similarity, torch.ones(2), torch.ones(3)).tolist()
    assert (precision, recall) == pytest.approx((0.65, 0.5))
    assert f1 == pytest.approx(2 * 0.65 * 0.5 / 1.15)

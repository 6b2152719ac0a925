"""ROUGE-L as the COCO caption evaluation defines it: an F-measure of the longest common subsequence."""

from collections.abc import Sequence

from lrl_core.metrics.ngrams import Sentence


def rouge_l(candidate: Sentence, references: Sequence[Sentence], beta: float = 1.2) -> float:
    """ROUGE-L of one candidate in [0, 1]; best precision and best recall may come from different references.

    Args:
        candidate: Tokenised sentence.
        references: Its tokenised references, at least one.
        beta: Weight of recall against precision; above 1 favours recall.
    """
    common = [(longest_common_subsequence(candidate, reference), len(reference)) for reference in references]
    precision = max(length for length, _ in common) / max(1, len(candidate))
    recall = max(length / max(1, size) for length, size in common)
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def longest_common_subsequence(left: Sentence, right: Sentence) -> int:
    """Number of tokens in the longest sequence that stands in both in this order, gaps allowed."""
    row = [0] * (len(right) + 1)
    for token in left:
        diagonal = 0
        for i, other in enumerate(right, start=1):
            above = row[i]
            row[i] = diagonal + 1 if token == other else max(above, row[i - 1])
            diagonal = above
    return row[-1]

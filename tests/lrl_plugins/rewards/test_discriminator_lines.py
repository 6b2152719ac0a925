import pytest
import torch

from lrl_core import ranks
from lrl_core.ranks import fewest_over_ranks
from lrl_core.testing.rewards import example_rollout, with_padding
from lrl_core.types import Prompts, Rollout
from lrl_plugins.rewards.discriminator_lines import Contrast, Lines, balanced, parts_of

SEAM = 99


def lines(*rows):
    width = max(map(len, rows))
    padded = [[*row, *[0] * (width - len(row))] for row in rows]
    return Lines(torch.tensor(padded).reshape(len(rows), width), torch.tensor([len(row) for row in rows]))


def rows_of(some):
    return [row[:length] for row, length in zip(some.tokens.tolist(), some.lengths.tolist(), strict=True)]


def numbered(count, start=0):
    """Lines of one id each, all different."""
    return lines(*[[start + i] for i in range(count)])


def episodes(prompts, said):
    asked, told = lines(*prompts), lines(*said)
    return Rollout(
        prompts=Prompts(asked.tokens - (asked.tokens == 0).long(), asked.lengths, torch.arange(len(said))),
        tokens=torch.where(told.tokens == 0, -1, told.tokens),  # padding that is no id
        lengths=told.lengths,
        action_mask=told.tokens != 0,
        logprobs=torch.zeros(told.tokens.shape),
        terminated=torch.ones(len(said), dtype=torch.bool),
    )


def test_a_line_is_the_prompt_the_seam_and_the_episode():
    rollout = episodes([[1, 2, 3], [4], []], [[5], [6, 7], []])
    assert rows_of(Lines.of(rollout, SEAM)) == [[1, 2, 3, SEAM, 5], [4, SEAM, 6, 7], [SEAM]]
    alone = Lines.of(rollout)
    assert rows_of(alone) == [[5], [6, 7], []]
    assert alone.tokens.min() == 0


def test_columns_of_padding_alone_are_left_out():
    rollout = example_rollout()
    assert Lines.of(with_padding(rollout, pad=-1)).tokens.equal(Lines.of(rollout).tokens)


def test_parts_hold_every_row_once_and_keep_the_budget():
    lengths = torch.tensor([3, 9, 1, 4, 4, 30, 0])
    parts = parts_of(lengths, 12)
    assert sorted(torch.cat(parts).tolist()) == list(range(7))
    sizes = [len(part) * int(lengths[part].max()) for part in parts]
    assert [size for size in sizes if size > 12] == [30]  # one line longer than the budget, by itself
    assert len(parts) == 4


def test_minibatches_are_balanced_and_as_many_as_promised():
    """7 real and 20 generated lines, 3 of each per minibatch: 3 minibatches a pass."""
    torch.manual_seed(0)
    lessons = list(balanced(numbered(7), numbered(20, start=100), batch_size=3, epochs=4))
    assert len(lessons) == 4 * 3
    assert all(len(lesson.real) == len(lesson.generated) <= 3 for lesson in lessons)
    passes = [lessons[i : i + 3] for i in range(0, 12, 3)]
    for one in passes:
        real = [row for lesson in one for row in lesson.real.tokens.flatten().tolist()]
        generated = [row for lesson in one for row in lesson.generated.tokens.flatten().tolist()]
        assert sorted(real) == list(range(7))
        assert len(set(generated)) == 7
        assert min(generated) >= 100
    orders = {tuple(lesson.real.tokens.flatten().tolist()) for lesson in lessons}
    assert len(orders) > 3  # shuffled anew
    seen = {row for lesson in lessons for row in lesson.generated.tokens.flatten().tolist()}
    assert len(seen) > 7  # each pass draws anew among the larger side


def test_without_lines_on_one_side_there_is_no_lesson():
    assert list(balanced(numbered(4), Lines(torch.zeros(0, 3, dtype=torch.long), torch.zeros(0).long()), 2, 2)) == []


def test_ranks_with_unlike_numbers_of_lines_make_as_many_minibatches(monkeypatch):
    """Two ranks, 9 and 4 pairs of lines, 2 per minibatch: both make 2."""
    made = []
    for mine, other in ((9, 4), (4, 9)):
        monkeypatch.setattr(ranks, "world_size", lambda: 2)
        monkeypatch.setattr(ranks, "rank", lambda: 0)
        monkeypatch.setattr(ranks, "sum_over_ranks", lambda counts, other=other: counts + torch.tensor([0, other]))
        assert fewest_over_ranks(mine, torch.device("cpu")) == 4
        lessons = list(balanced(numbered(mine), numbered(mine), 2, 1))
        made.append(len(lessons))
        assert sum(len(lesson.real) for lesson in lessons) == mine
    assert made == [2, 2]


def test_micro_batches_hold_every_line_once_and_stay_balanced():
    real, generated = lines([1] * 7, [2], [3] * 3, [4] * 2), lines([5], [6] * 6, [7] * 2, [8] * 4)
    whole = Contrast(real, generated)
    assert whole.split(None) == [whole]
    parts = whole.split(16)
    assert len(parts) == 3
    assert all(len(part.real) == len(part.generated) for part in parts)
    assert sorted(row for part in parts for row in rows_of(part.real)) == sorted(rows_of(real))
    assert sorted(row for part in parts for row in rows_of(part.generated)) == sorted(rows_of(generated))
    assert all(
        2 * len(part.real) * max(part.real.tokens.shape[1], part.generated.tokens.shape[1]) <= 16 for part in parts
    )


@pytest.mark.parametrize("budget", [1, 8, 1000])
def test_any_budget_gives_at_least_one_part(budget):
    assert len(Contrast(numbered(3), numbered(3)).split(budget)) in (1, 3)

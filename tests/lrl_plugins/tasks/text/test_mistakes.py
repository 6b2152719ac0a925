"""Language modelling with a backspace: mistakes in the training answers, and nowhere else."""

import pytest
import torch

from lrl_core.backspace import kept
from lrl_core.types import Rollout
from lrl_plugins.tasks.text.language_modelling import LanguageModelling
from lrl_plugins.tasks.text.made_up import MadeUpStories


def task(**changes):
    return LanguageModelling(MadeUpStories(train=64, val=4, test=4), **({"batch_size": 64} | changes))


def targets(batch):
    """Group number -> its target."""
    rows = zip(batch.group.tolist(), batch.targets.tolist(), batch.target_lengths.tolist(), strict=True)
    return {group: tuple(line[:length]) for group, line, length in rows}


def test_without_a_backspace_nothing_changes():
    plain, able = task(), task(backspace=True)
    first, second = (next(iter(one.train_dataloader())) for one in (plain, able))
    assert plain.tokenizer.backspace is None
    assert len(able.tokenizer) == len(plain.tokenizer) + 1
    assert targets(first) == targets(second)
    assert first.target_mask is None
    assert second.target_mask is None


def test_every_epoch_has_other_mistakes_and_the_same_texts():
    noisy, clean = task(backspace=True, noise=0.1), targets(next(iter(task().train_dataloader())))
    loader = noisy.train_dataloader()
    epochs = [targets(*loader) for _ in range(2)]  # one batch each
    back = noisy.tokenizer.backspace
    for lines in epochs:
        assert {group: tuple(kept(line, back)) for group, line in lines.items()} == clean
        share = sum(line.count(back) for line in lines.values()) / sum(map(len, clean.values()))
        assert share == pytest.approx(0.1, abs=0.04)
    changed = [group for group in clean if epochs[0][group] != epochs[1][group]]
    assert len(changed) > 30


def test_mistakes_depend_on_seed_epoch_and_row_alone():
    torch.manual_seed(3)
    first = [targets(batch) for batch in task(backspace=True, noise=0.1).train_dataloader()]
    torch.manual_seed(4)
    again = [targets(batch) for batch in task(backspace=True, noise=0.1, batch_size=16).train_dataloader()]
    other = [targets(batch) for batch in task(backspace=True, noise=0.1, seed=1).train_dataloader()]
    assert first[0] == {group: line for batch in again for group, line in batch.items()}
    assert first[0] != other[0]


def test_wrong_words_are_not_learnt_and_backspaces_are():
    noisy = task(backspace=True, noise=0.2)
    rollout = Rollout.of_targets(next(iter(noisy.train_dataloader())))
    back = rollout.tokens == noisy.tokenizer.backspace
    assert bool(back.any())
    assert bool(rollout.action_mask[back].all())
    real = torch.arange(rollout.tokens.shape[1]) < rollout.lengths[:, None]
    assert torch.equal(real & ~rollout.action_mask, torch.nn.functional.pad(back[:, 1:], (0, 1)))


def test_held_out_answers_have_no_mistakes():
    noisy, clean = task(backspace=True, noise=0.5), task()
    for own, theirs in (
        (noisy.val_dataloader(), clean.val_dataloader()),
        (noisy.test_dataloader(), clean.test_dataloader()),
    ):
        batch = next(iter(own))
        assert targets(batch) == targets(next(iter(theirs)))
        assert batch.target_mask is None


def test_a_line_may_get_longer_than_max_length_and_ends_all_the_same():
    noisy = task(backspace=True, noise=0.9, max_length=5)
    lines = targets(next(iter(noisy.train_dataloader())))
    assert max(map(len, lines.values())) > 5
    assert {len(kept(line, noisy.tokenizer.backspace)) for line in lines.values()} == {5}
    assert all(line[-1] == noisy.tokenizer.eos for line in lines.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise": 0.1}, "LanguageModelling: got noise 0.1 without backspace, expected a token.*Set backspace to true"),
        ({"noise": 1.0, "backspace": True}, r"LanguageModelling: got noise 1.0, expected a chance in \[0, 1\)"),
        ({"noise": -0.1, "backspace": True}, "got noise -0.1"),
    ],
)
def test_impossible_noise_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        task(**options)

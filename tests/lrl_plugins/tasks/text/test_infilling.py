"""Story infilling: what the prompt shows, what maximum likelihood learns, and what is refused."""

import pytest

from lrl_plugins.tasks.text.infilling import Infilling
from lrl_plugins.tasks.text.made_up import MadeUpStories
from lrl_plugins.tasks.text.sources import Example, TextSource


class Told(TextSource):
    """Three stories to train on and one of them for validation."""

    def __init__(self, **columns):
        self.columns = columns

    def splits(self):
        return {"train": [self.told(i) for i in range(3)], "val": [self.told(2)]}

    def told(self, i):
        return Example(str(i), f"begin {i}", (f"middle {i}", f"other {i}"), {"after": f"end {i}", **self.columns})


def rows(task, split="train"):
    """Prompt, answer and group of each row of the first epoch, as text."""
    (batch,) = list(task.train_dataloader() if split == "train" else task.val_dataloader())
    lines = zip(batch.tokens, batch.lengths, batch.targets, batch.target_lengths, batch.group.tolist(), strict=True)
    read = task.tokenizer.decode
    return sorted((group, read(p[:n].tolist()), read(a[:m].tolist())) for p, n, a, m, group in lines)


def test_the_prompt_shows_the_end_before_the_beginning():
    task = Infilling(Told(), batch_size=3)
    assert [prompt for _, prompt, _ in rows(task)] == [f"end {i} sep begin {i}" for i in range(3)]
    assert rows(task, "val") == [(3, "end 2 sep begin 2", "middle 2")]
    (batch,) = list(task.val_dataloader())
    assert batch.references == (("middle 2", "other 2"),)
    shown = batch.examples[0]
    assert (shown["before"], shown["after"]) == ("begin 2", "end 2")
    assert task.tokenizer.unk not in task.tokenizer.encode("sep")


def test_order_story_goes_on_from_the_beginning_alone():
    task = Infilling(Told(), order="story", batch_size=3)
    for group, prompt, answer in rows(task):
        assert prompt == f"begin {group - 4}"
        assert answer in (f"middle {group - 4} end {group - 4}", f"other {group - 4} end {group - 4}")
    assert [row[1:] for row in rows(task, "val")] == [("begin 2", "middle 2 end 2")]
    (batch,) = list(task.val_dataloader())
    assert batch.references == (("middle 2 end 2", "other 2 end 2"),)


def test_both_kinds_of_rows_are_different_prompts_of_one_batch_with_the_same_middle():
    task = Infilling(Told(), order="both", batch_size=3)
    found = rows(task)
    assert len(found) == 6
    assert len({group for group, _, _ in found}) == 6
    for (_, asked, middle), (_, begun, story) in zip(found[:3], found[3:], strict=True):
        assert asked.endswith(f"sep {begun}")
        assert story == f"{middle} end {begun[-1]}"
    assert len(rows(task, "val")) == 1


def test_whole_stories_are_shown_in_the_first_epochs_only():
    task = Infilling(Told(), order="both", story_epochs=1, batch_size=3)
    loader = task.train_dataloader()
    assert [len(next(iter(loader))) for _ in range(1)] == [6]
    dataset = task.splits()["train"]
    assert [len(dataset[0, epoch]) for epoch in range(3)] == [2, 1, 1]


@pytest.mark.parametrize("vocabulary", [None, 200])
def test_a_story_is_read_as_the_posterior_reads_it(vocabulary):
    """The tokens of middle and end, each encoded by itself, are those of the joined text too."""
    task = Infilling(MadeUpStories(train=40, val=4, test=4), order="story", vocabulary=vocabulary)
    for i in range(40):
        (row,) = task.splits()["train"][i, 0]
        middle = task.examples["train"][i].references[0]
        read = task.tokenizer.encode
        assert row.target == (*read(middle), *read(row.example.columns["after"]), task.tokenizer.eos)
        assert list(row.target[:-1]) == read(row.example.references[0])


def test_long_stories_are_cut_and_end():
    task = Infilling(Told(), order="story", max_story_length=4, max_prompt_length=4)
    (row,) = task.splits()["train"][0, 0]
    assert task.tokenizer.decode(row.target) in ("middle 0 end", "other 0 end")  # three words and EOS
    assert row.target[-1] == task.tokenizer.eos


def test_made_up_ends_tell_what_happened_in_the_middle():
    splits = MadeUpStories(train=50).splits()
    verbs = {"hid": "looked for", "sold": "money", "dropped": "pieces", "lost": "birds", "showed": "talked"}
    for example in splits["train"]:
        (told,) = [end for verb, end in verbs.items() if f" {verb} " in example.references[0]]
        assert told in example.columns["after"]
        assert example.columns["before"] == example.prompt


def test_what_cannot_be_infilled_is_refused():
    for after in ("", None, 3):
        with pytest.raises(ValueError, match=r"Infilling: got .* as column `after` of example 0"):
            Infilling(Told(after=after)).facts()
    with pytest.raises(ValueError, match="got order 'end'"):
        Infilling(order="end")
    with pytest.raises(ValueError, match="got story_epochs 2 with order 'story'"):
        Infilling(order="story", story_epochs=2)

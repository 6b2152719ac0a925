"""Lists of sentences cut into beginning, wanted sentence and end."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest

from lrl_plugins.tasks.text.stories import Stories

DATA = Path(__file__).resolve().parents[4] / ".." / "shared" / "data" / "stories_fairytale"
STORY = ["One.", "Two two.", "Three three three.", "Four.", "Five."]


def write(path, *rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def test_every_sentence_is_wanted_once_with_what_stands_around_it(tmp_path):
    path = write(tmp_path / "s.jsonl", {"id": "tale", "sentences": STORY})
    first, last = Stories(path, val=path, held_out=0.4)._windows("s-1", {"id": "tale", "sentences": STORY}, "")
    assert (first.id, first.prompt, first.references) == ("s-1-2", "One. Two two.", ("Three three three.",))
    assert first.columns == {"id": "tale", "before": "One. Two two.", "after": "Four."}
    assert (last.prompt, last.references, last.columns["after"]) == ("Two two. Three three three.", ("Four.",), "Five.")


def test_context_and_end_are_as_long_as_asked_and_long_sentences_are_passed_over(tmp_path):
    path = write(tmp_path / "s.jsonl", {"sentences": STORY}, {"sentences": [" ", *STORY[:2]]})

    def wanted(**options):
        source = Stories(path, **options)
        return [e.references[0] for split in source.splits().values() for e in split if e.id.startswith("s-1")]

    assert wanted() == ["Three three three.", "Four."]
    assert wanted(after=0) == ["Three three three.", "Four.", "Five."]
    assert wanted(context=1, after=2) == ["Two two.", "Three three three."]
    assert wanted(most_words=2) == ["Four."]  # the third sentence is too long, as the end of the second too
    assert wanted(context=1, most_words=2) == ["Four."]
    ends = [e.columns["after"] for split in Stories(path, context=1, after=2).splits().values() for e in split]
    assert ends == ["Three three three. Four.", "Four. Five."]


def test_a_story_is_in_one_split(tmp_path):
    rows = [{"sentences": [f"{i} {j}." for j in range(6)]} for i in range(60)]
    splits = Stories(write(tmp_path / "all.jsonl.gz", *rows), held_out=0.2).splits()
    stories = {split: {e.prompt.split()[0] for e in examples} for split, examples in splits.items()}
    assert set(stories) == {"train", "val", "test"}
    assert all(stories.values())
    assert sum(map(len, stories.values())) == 60  # no story in two splits
    assert all(len(examples) == 3 * len(stories[split]) for split, examples in splits.items())


def test_files_for_each_split(tmp_path):
    train, val = (write(tmp_path / f"{name}.jsonl", {"text": STORY}) for name in ("train", "val"))
    splits = Stories(train, val, field="text").splits()
    assert [e.id for e in splits["train"]] == ["train-1-2", "train-1-3"]
    assert [e.id for e in splits["val"]] == ["val-1-2", "val-1-3"]
    assert "test" not in splits


def test_what_is_no_list_of_sentences_is_refused(tmp_path):
    path = write(tmp_path / "s.jsonl", {"sentences": "One. Two."})
    with pytest.raises(ValueError, match=r"Stories: got str as 'sentences' in line 1 .* expected a list of sentences"):
        Stories(path).splits()
    with pytest.raises(ValueError, match="among sentences, or correct the line"):
        Stories(path, field="text").splits()
    with pytest.raises(ValueError, match="got context 0"):
        Stories(path, context=0)
    with pytest.raises(ValueError, match=r"got held_out 0\.7"):
        Stories(path, held_out=0.7)


def test_real_stories():
    if not DATA.is_dir():
        pytest.skip("the stories of FairytaleQA are not here")
    splits = Stories(*(str(DATA / f"{split}.jsonl.gz") for split in ("train", "val", "test"))).splits()
    assert all(len(examples) > 700 for examples in splits.values())
    example = splits["val"][0]
    story = json.loads(gzip.decompress((DATA / "val.jsonl.gz").read_bytes()).split(b"\n")[0])["sentences"]
    at = story.index(example.references[0])
    assert example.prompt == f"{story[at - 2]} {story[at - 1]}"
    assert example.columns["after"] == story[at + 1]
    ours = [e for e in splits["val"] if e.id.startswith("val-1-")]
    short = [len(sentence.split()) <= 30 for sentence in story]
    assert len(ours) == sum(a and b for a, b in pairwise(short[2:]))

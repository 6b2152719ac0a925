import gzip
import json
from pathlib import Path

import pytest

from lrl_plugins.tasks.text.sources import JsonLines, Parallel, texts_of

SHARED = Path(__file__).resolve().parents[4] / ".." / "shared" / "data"


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def ids(splits):
    return {split: {example.id for example in examples} for split, examples in splits.items()}


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("a b", ["a b"]),
        (72, ["72"]),
        (None, []),
        (["a", ["b", 3]], ["a", "b", "3"]),
        ({"name": "Blue Spice", "food": ["Thai", "Indian"]}, ["name[Blue Spice], food[Thai Indian]"]),
    ],
)
def test_fields_hold_texts_lists_numbers_and_tables(value, texts):
    assert texts_of(value) == texts


def test_fields_are_named_and_rows_kept_as_columns(tmp_path):
    rows = [{"q": f"what {i}", "a": ["one", "", "two"], "b": "three", "answer": i} for i in range(4)]
    train = write(tmp_path / "train.jsonl.gz", rows)
    val = write(tmp_path / "val.jsonl", rows)
    splits = JsonLines(train, val, prompt_field="q", references_fields=["a", "b"]).splits()
    assert ids(splits) == {"train": {f"train-{i}" for i in range(1, 5)}, "val": {f"val-{i}" for i in range(1, 5)}}
    example = splits["train"][2]
    assert (example.prompt, example.references, example.columns) == ("what 2", ("one", "two", "three"), rows[2])


def test_a_list_gives_the_prompt_and_the_references(tmp_path):
    file = write(tmp_path / "x.jsonl", [{"i": i, "en": ["a", "b", "c", "d", "e"]} for i in range(2)])
    options = {"prompt_field": "en", "references_fields": ["en"], "id_field": "i"}
    for count, expected in ((1, ("a", ("b", "c", "d", "e"))), (4, ("a b c d", ("e",)))):
        splits = JsonLines(file, **options, prompt_texts=count).splits()
        assert [(e.prompt, e.references) for examples in splits.values() for e in examples] == [expected] * 2


def test_splits_that_share_a_file_share_its_rows_out(tmp_path):
    rows = [{"id": i, "prompt": "p", "references": "r"} for i in range(1000)]
    file, other = write(tmp_path / "x.jsonl", rows), write(tmp_path / "y.jsonl", rows[:10])
    whole = ids(JsonLines(file, id_field="id", held_out=0.2).splits())
    assert sum(map(len, whole.values())) == len(set.union(*whole.values())) == 1000
    assert len(whole["val"]) == pytest.approx(200, abs=40)
    assert len(whole["test"]) == pytest.approx(200, abs=40)
    halves = ids(JsonLines(other, file, file, id_field="id").splits())
    assert len(halves["train"]) == 10
    assert not halves["val"] & halves["test"]
    assert len(halves["val"]) == pytest.approx(500, abs=60)
    assert len(halves["val"] | halves["test"]) == 1000
    assert ids(JsonLines(file, id_field="id", held_out=0.2).splits()) == whole
    assert set(JsonLines(file, other).splits()) == {"train", "val"}


def test_a_split_field_decides(tmp_path):
    rows = [{"prompt": "p", "references": "r", "split": split} for split in ("train", "dev", "test", "validation")]
    splits = JsonLines(write(tmp_path / "x.jsonl", rows), split_field="split").splits()
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 1, "val": 2, "test": 1}
    rows[0]["split"] = "practice"
    with pytest.raises(ValueError, match=r"got split 'practice' in line 1 of .*expected one of train"):
        JsonLines(write(tmp_path / "x.jsonl", rows), split_field="split").splits()


def test_mistakes_are_named(tmp_path):
    file = write(tmp_path / "x.jsonl", [{"question": "q"}])
    with pytest.raises(ValueError, match=r"JsonLines: got no field 'prompt' in line 1 of .*question.*Set prompt_field"):
        JsonLines(file).splits()
    with pytest.raises(ValueError, match="expected one of the two"):
        JsonLines(file, val=file, split_field="split")
    with pytest.raises(ValueError, match=r"held_out 0\.7"):
        JsonLines(file, held_out=0.7)
    with pytest.raises(ValueError, match="prompt_texts 0"):
        JsonLines(file, prompt_texts=0)


def test_rows_need_no_answers(tmp_path):
    file = write(tmp_path / "x.jsonl", [{"prompt": "p"}])
    splits = JsonLines(file, references_fields=[]).splits()
    assert [example.references for examples in splits.values() for example in examples] == [()]


def test_parallel_lines(tmp_path):
    (tmp_path / "a.de").write_text("eins\n\n zwei \n")
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(b"one\nnothing\ntwo\n"))
    files = [str(tmp_path / "a.de"), str(tmp_path / "a.en.gz")]
    splits = Parallel(*files, *files).splits()
    assert [(e.id, e.prompt, e.references) for e in splits["train"]] == [
        ("train-1", "eins", ("one",)),
        ("train-3", "zwei", ("two",)),
    ]
    assert set(splits) == {"train", "val"}
    (tmp_path / "short.en").write_text("one\n")
    with pytest.raises(ValueError, match=r"got 3 lines in .* and 1 in .*expected as many"):
        Parallel(files[0], str(tmp_path / "short.en"), *files).splits()
    with pytest.raises(ValueError, match="expected both or neither"):
        Parallel(*files, *files, test_prompts=files[0])


def test_e2e_restaurants():
    if not (SHARED / "e2e_nlg").is_dir():
        pytest.skip("needs shared/data/e2e_nlg")
    dev, test = (str(SHARED / "e2e_nlg" / f"{name}.jsonl.gz") for name in ("dev", "test"))
    splits = JsonLines(dev, test, test, prompt_field="mr", references_fields=["refs"]).splits()
    assert len(splits["train"]) == 547
    assert len(splits["val"]) + len(splits["test"]) == 630
    assert splits["train"][0].prompt == "name[Alimentum], area[city centre], familyFriendly[no]"
    assert sum(len(example.references) for example in splits["train"]) == 4672

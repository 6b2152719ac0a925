"""Ranked answers from files and from a store of labels."""

import gzip
import json

import pytest

from lrl_plugins.tasks.preferences.sources import Ranked, RankedJsonLines, StoredLabels, dense_ranks


def written(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def test_ranks_are_dense_and_keep_ties():
    assert dense_ranks([3, 1, 1, 7.5]) == (1, 0, 0, 2)


def test_the_best_and_the_order_of_a_comparison():
    ranked = Ranked("a", "p", ("x", "y", "z"), (2, 0, 0))
    assert ranked.best == ("y", "z")
    assert ranked.order == [1, 2, 0]
    assert ranked.example.references == ("y", "z")


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_both_kinds_of_rows_are_read(tmp_path, name):
    rows = [
        {"prompt": "p", "candidates": ["a", "b", "c"], "ranks": [2, 1, 1], "note": 5},
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {"prompt": "r", "chosen": "one", "rejected": ["two", "three"]},
    ]
    file = written(tmp_path / name, rows)
    splits = RankedJsonLines(file, val=file).splits()
    assert splits["train"] == splits["val"]
    assert splits["train"] == [
        Ranked("x-1", "p", ("a", "b", "c"), (1, 0, 0), rows[0]),
        Ranked("x-2", "q", ("yes", "no"), (0, 1), rows[1]),
        Ranked("x-3", "r", ("one", "two", "three"), (0, 1, 1), rows[2]),
    ]
    assert "test" not in splits


def test_field_names_and_ids_are_configurable(tmp_path):
    rows = [
        {"q": "p", "texts": ["a", "b"], "places": [1, 2], "key": 7},
        {"q": "p", "good": "a", "bad": "b", "key": 8},
    ]
    file = written(tmp_path / "x.jsonl", rows)
    fields = {"candidates_field": "texts", "ranks_field": "places", "chosen_field": "good", "rejected_field": "bad"}
    read = RankedJsonLines(file, val=file, prompt_field="q", id_field="key", **fields).splits()["train"]
    assert [row.id for row in read] == ["7", "8"]
    assert [(row.candidates, row.ranks) for row in read] == [(("a", "b"), (0, 1))] * 2


def test_rows_are_held_out_by_their_prompt_in_every_run_alike(tmp_path):
    rows = [{"prompt": f"p{i % 60}", "chosen": f"a{i}", "rejected": "b"} for i in range(180)]
    file = written(tmp_path / "x.jsonl", rows)
    splits = RankedJsonLines(file, held_out=0.2).splits()
    prompts = {name: {row.prompt for row in own} for name, own in splits.items()}
    assert sum(map(len, splits.values())) == 180
    assert sum(map(len, prompts.values())) == 60  # no prompt is in two splits
    assert all(4 <= len(prompts[name]) <= 20 for name in ("val", "test"))
    assert splits == RankedJsonLines(file, held_out=0.2).splits()
    with_test = RankedJsonLines(file, test=file, held_out=0.2).splits()
    assert len(with_test["test"]) == 180
    assert with_test["val"] == splits["val"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompt": "p", "chosen": "a"},
            r"got no field 'rejected' in line 1 of .*fields prompt, chosen",
        ),
        ({"candidates": ["a", "b"], "ranks": [0, 1]}, "got no field 'prompt' in line 1"),
        ({"prompt": "p", "candidates": ["a", "b"], "ranks": [0]}, r"got 2 candidates and the ranks \[0\] in line 1"),
        ({"prompt": "p", "candidates": ["a", "b"], "ranks": "01"}, "expected one number for each"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, row, said):
    with pytest.raises(ValueError, match=said):
        RankedJsonLines(written(tmp_path / "x.jsonl", [row])).splits()


@pytest.mark.parametrize("held_out", [0.0, 0.5])
def test_a_wrong_share_is_refused(tmp_path, held_out):
    file = written(tmp_path / "x.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    with pytest.raises(ValueError, match="RankedJsonLines: got held_out"):
        RankedJsonLines(file, held_out=held_out).splits()


def test_the_labels_that_people_gave_are_read(tmp_path):
    store_module = pytest.importorskip("lrl_core.preferences.store", reason="needs sqlalchemy")
    url = f"sqlite:///{tmp_path / 'labels.db'}"
    store = store_module.PreferenceStore(url)
    for i in range(20):
        question = store.ask(f"prompt {i}", ["a", "b"])
        store.judge(question, [1, 0], who="ann")
    skipped = store.ask("never mind", ["a", "b"])
    store.judge(skipped, None, who="ann")
    again = store.judge(question, [0, 0], who="bob")
    store.close()
    splits = StoredLabels(url, held_out=0.3).splits()
    rows = splits["train"] + splits["val"]
    assert sorted(row.prompt for row in rows) == sorted([f"prompt {i}" for i in range(20)] + ["prompt 19"])
    assert splits["train"]
    assert splits["val"]
    assert {row.ranks for row in rows} == {(1, 0), (0, 0)}
    assert len({row.id for row in rows}) == 21
    both = [name for name, own in splits.items() for row in own if row.prompt == "prompt 19"]
    assert len(set(both)) == 1  # two judgments of a prompt are in one split
    earlier = StoredLabels(url, until=again - 1).splits()
    assert sum(map(len, earlier.values())) == 20


@pytest.mark.parametrize("held_out", [0.0, 1.0])
def test_labels_need_a_share_to_hold_out(held_out):
    with pytest.raises(ValueError, match="StoredLabels: got held_out"):
        StoredLabels("labels.db", held_out=held_out)

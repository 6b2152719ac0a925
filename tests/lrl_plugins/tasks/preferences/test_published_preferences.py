"""Published comparisons: on made-up files, and on the real ones where they are."""

import gzip
import json
from pathlib import Path

import pytest

from lrl_plugins.tasks.preferences.published import (
    Continuations,
    Dialogues,
    RatedTranslations,
    split_dialogues,
    tolerant_ranks,
)

REAL = Path(__file__).resolve().parents[4] / ".." / "shared" / "data"
TURNS = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: {}\n\nAssistant:"


def real(*parts):
    file = REAL.joinpath(*parts)
    if not file.exists():
        pytest.skip(f"{'/'.join(parts)} is not there")
    return str(file)


def written(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def dialogues(count):
    return [
        {"chosen": TURNS.format(f"q{i}") + " good", "rejected": TURNS.format(f"q{i}") + " bad"} for i in range(count)
    ]


def test_dialogues_part_at_the_last_reply_that_both_begin():
    same = TURNS.format("why?")
    prompt, answers = split_dialogues({"chosen": same + " because", "rejected": same + " no"}, "line 1")
    assert prompt == same.strip()
    assert answers == ("because", "no")
    later = " so\n\nHuman: and?\n\nAssistant: nothing"
    _, answers = split_dialogues({"chosen": same + later, "rejected": same + " so what"}, "line 1")
    assert answers == (later.strip(), "so what")
    _, answers = split_dialogues({"chosen": same + " ", "rejected": same + " Ok"}, "line 1")
    assert answers == ("", "Ok")


def test_a_turn_that_is_the_same_but_for_its_end_is_shared():
    """`\\n\\nAssistant` without its colon, or a longer name, is no turn."""
    prompt, answers = split_dialogues({"chosen": "\n\nAssistant: a\n\nAssistant", "rejected": "\n\nAssistant: b"}, "x")
    assert (prompt, answers) == ("Assistant:", ("a\n\nAssistant", "b"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}, "share no turn"),
        ({"chosen": "a", "rejected": "a"}, "share no turn"),
        ({"chosen": "a"}, "got the fields chosen in line 3"),
    ],
)
def test_rows_that_are_no_dialogues_are_named(row, said):
    with pytest.raises(ValueError, match=rf"(?s)Dialogues: .*{said}"):
        split_dialogues(row, "line 3 of x.jsonl")


def test_the_first_rows_train_and_the_rest_tests(tmp_path):
    file = written(tmp_path / "x.jsonl.gz", dialogues(60))
    splits = Dialogues(file, train_rows=50, held_out=0.2).splits()
    assert [row.id for row in splits["test"]] == [f"x-{i}" for i in range(51, 61)]
    assert len(splits["train"]) + len(splits["val"]) == 50
    assert 3 <= len(splits["val"]) <= 20
    val = written(tmp_path / "val.jsonl", dialogues(3))
    named = Dialogues(file, val=val, train_rows=50).splits()
    assert {name: len(own) for name, own in named.items()} == {"train": 50, "val": 3, "test": 10}
    assert {name: len(own) for name, own in Dialogues(file, val=val).splits().items()} == {"train": 60, "val": 3}
    with pytest.raises(ValueError, match="Dialogues: got train_rows 5 and test"):
        Dialogues(file, test=file, train_rows=5)


def test_the_published_dialogues():
    splits = Dialogues(real("hh_rlhf_harmless_test", "test.jsonl.gz"), train_rows=1800).splits()
    rows = [row for own in splits.values() for row in own]
    assert len(rows) == 2312
    assert len(splits["test"]) == 512
    assert all(row.prompt.endswith("Assistant:") and row.prompt.startswith("Human:") for row in rows)
    assert sum("" in row.candidates for row in rows) == 4
    longer = [row.id for row in rows if any("\n\nAssistant:" in text for text in row.candidates)]
    assert sorted(longer) == ["test-1255", "test-1689", "test-1951", "test-1953", "test-2037"]


@pytest.mark.parametrize(
    ("penalties", "tolerance", "ranks"),
    [
        ([2.0, 0.0, 1.0, 0.0], 0.0, (2, 0, 1, 0)),
        ([0.0, 1.0, 1.9, 2.0], 1.0, (0, 0, 1, 1)),  # a rank reaches from its best member, so ties do not chain
        ([5.0, 5.0], 0.0, (0, 0)),
    ],
)
def test_ranks_with_tolerance(penalties, tolerance, ranks):
    assert tolerant_ranks(penalties, tolerance) == ranks


def rated(doc, seg, *candidates):
    listed = [{"system": f"s{i}", "text": text, "mean": mean} for i, (text, mean) in enumerate(candidates)]
    return {"doc": doc, "seg": seg, "source": f"source {doc} {seg}", "candidates": listed}


def test_equal_translations_are_one_candidate_with_their_mean(tmp_path):
    file = written(tmp_path / "x.jsonl", [rated("d", 4, ("a", 0.0), ("b", 1.0), ("a", 3.0))])
    (row,) = RatedTranslations(file, val=file).splits()["train"]
    assert (row.id, row.prompt, row.candidates, row.ranks) == ("d-4", "source d 4", ("a", "b"), (1, 0))


def test_no_document_is_in_two_splits(tmp_path):
    rows = [rated(f"doc{i % 40}", i, ("a", 0.0), ("b", 1.0)) for i in range(160)]
    splits = RatedTranslations(written(tmp_path / "x.jsonl", rows)).splits()
    documents = {name: {row.columns["doc"] for row in own} for name, own in splits.items()}
    assert sum(map(len, documents.values())) == 40
    assert all(documents[name] for name in ("train", "val", "test"))


def test_a_faulty_translation_and_tolerance_are_named(tmp_path):
    file = written(tmp_path / "x.jsonl", [{"doc": "d", "seg": 1, "source": "s", "candidates": [{"text": "a"}]}])
    with pytest.raises(ValueError, match=r"RatedTranslations: got line 1 of .*KeyError: 'mean'"):
        RatedTranslations(file).splits()
    with pytest.raises(ValueError, match="got tolerance -1"):
        RatedTranslations(file, tolerance=-1.0)


@pytest.mark.parametrize(("pair", "segments"), [("ende", 104), ("zhen", 377)])
def test_the_published_translations(pair, segments):
    file = real("wmt23_mqm_rankings", f"{pair}.jsonl.gz")
    splits = RatedTranslations(file).splits()
    rows = [row for own in splits.values() for row in own]
    assert len(rows) == segments
    assert all(splits[name] for name in ("train", "val", "test"))
    documents = [{row.columns["doc"] for row in own} for own in splits.values()]
    assert sum(map(len, documents)) == len(set.union(*documents))
    assert all(min(row.ranks) == 0 and len(set(row.candidates)) == len(row.candidates) for row in rows)
    by_text = {c["text"]: c["mean"] for c in rows[0].columns["candidates"]}
    best = min(by_text[text] for text in rows[0].best)
    assert best == min(by_text[text] for text in rows[0].candidates)
    if pair == "ende":  # the reference translation is a candidate
        assert any(c["system"] == "refA" and c["text"] in rows[0].candidates for c in rows[0].columns["candidates"])


def test_sentences_are_cut_into_prompt_and_answer(tmp_path):
    rows = [{"label": i % 2, "text": f"the film was word{i} indeed"} for i in range(4)] + [
        {"label": 1, "text": "the film was"}
    ]
    file = written(tmp_path / "x.jsonl.gz", rows)
    splits = Continuations(file, val=file, prompt_words=3, only={"label": 1}).splits()
    assert [(row.id, row.prompt, row.candidates, row.ranks) for row in splits["train"]] == [
        ("x-2", "the film was", ("word1 indeed",), (0,)),
        ("x-4", "the film was", ("word3 indeed",), (0,)),
    ]
    assert splits["train"][0].columns == {"label": 1, "text": "the film was word1 indeed"}
    plain = tmp_path / "lines.txt"
    plain.write_text("one two three\n\nfour\nfive six\n")
    read = Continuations(str(plain), val=str(plain), prompt_words=1).splits()["train"]
    assert [(row.id, row.prompt, row.candidates) for row in read] == [
        ("lines-1", "one", ("two three",)), ("lines-4", "five", ("six",))
    ]  # fmt: skip


def test_what_sentences_lack_is_named(tmp_path):
    file = written(tmp_path / "x.jsonl", [{"sentence": "a b"}])
    with pytest.raises(ValueError, match=r"Continuations: got no field 'text' in line 1 of .*fields sentence"):
        Continuations(file).splits()
    with pytest.raises(ValueError, match="Continuations: got prompt_words 0"):
        Continuations(file, prompt_words=0)


def test_the_published_sentences():
    files = [real("sentiment_mr", f"{split}.jsonl.gz") for split in ("train", "val", "test")]
    everything, liked = Continuations(*files).splits(), Continuations(*files, only={"label": 1}).splits()
    assert 8000 < len(everything["train"]) <= 8506
    assert 1000 < len(everything["val"]) <= 1105
    assert 0.4 < len(liked["train"]) / len(everything["train"]) < 0.6
    assert all(len(row.prompt.split()) == 4 and row.candidates[0] for row in everything["test"])

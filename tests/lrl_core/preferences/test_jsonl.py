import base64
import gzip
import json

import pytest

pytest.importorskip("sqlalchemy", reason="labels need the extra lrl[labels]")

from lrl_core.preferences.jsonl import export_jsonl, import_jsonl
from lrl_core.preferences.store import PreferenceStore

PNG = b"\x89PNG\r\n\x1a\n..."


@pytest.fixture
def store():
    return PreferenceStore("sqlite://")


@pytest.fixture
def filled():
    store = PreferenceStore("sqlite://")
    picture, text = (
        store.ask("what is this?", ["un chat", "a dög"], picture=PNG, step=3),
        store.ask("p", ["a", "b", "c"]),
    )
    store.judge(picture, [1, 0], who="ann", seconds=2.5)
    store.judge(text, None, who="ann")
    store.withdraw(store.judge(text, [0, 0, 1], who="bob"), "bob")
    store.judge(text, [2, 0, 1], who="bob")
    return store


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def said(store):
    questions = {one.id: (one.prompt, one.candidates, one.picture, one.step) for one in store.questions()}
    return [
        (*questions[one.question], one.who, one.when, one.seconds, one.ranks, one.withdrawn)
        for one in store.judgments()
    ]


def test_rows_say_everything(filled, tmp_path):
    assert export_jsonl(filled, tmp_path / "labels.jsonl") == 4
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    first = filled.judgments()[0]
    assert rows[0] == {
        "prompt": "what is this?",
        "candidates": ["un chat", "a dög"],
        "ranks": [1, 0],
        "who": "ann",
        "when": first.when,
        "seconds": 2.5,
        "skipped": False,
        "withdrawn": False,
        "step": 3,
        "picture": base64.b64encode(PNG).decode(),
        "key": first.key,
    }
    assert [(row["ranks"], row["skipped"], row["withdrawn"]) for row in rows[1:]] == [
        (None, True, False),
        ([0, 0, 1], False, True),
        ([2, 0, 1], False, False),
    ]


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz"])
def test_out_and_in_again_is_the_same(filled, store, tmp_path, name):
    export_jsonl(filled, tmp_path / name)
    assert import_jsonl(store, tmp_path / name) == 4
    assert said(store) == said(filled)
    assert import_jsonl(store, tmp_path / name) == 0
    assert import_jsonl(filled, tmp_path / name) == 0
    assert len(store.questions()) == len(filled.questions()) == 2
    assert store.version() == filled.version() == 5


def test_judgments_of_another_place_join_the_same_question(filled, store, tmp_path):
    export_jsonl(filled, tmp_path / "out.jsonl")
    import_jsonl(store, tmp_path / "out.jsonl")
    store.judge(2, [0, 1, 1], who="cem")
    export_jsonl(store, tmp_path / "back.jsonl")
    assert import_jsonl(filled, tmp_path / "back.jsonl") == 1
    assert filled.last("cem").question == 2
    assert len(filled.questions()) == 2


def test_pictures_make_questions_different(store, tmp_path):
    row = {"prompt": "what is this?", "candidates": ["a", "b"], "best": 0}
    other = {**row, "picture": base64.b64encode(PNG).decode()}
    assert import_jsonl(store, write(tmp_path / "a.jsonl", row, other)) == 2
    assert [one.picture for one in store.questions()] == [None, PNG]


def test_rows_from_elsewhere(store, tmp_path):
    pair = {"prompt": "p", "chosen": "good", "rejected": "bad"}
    best = {"prompt": "q", "candidates": ["a", "b", "c"], "best": 2, "who": "ann"}
    ranked = {"prompt": "q", "candidates": ["a", "b", "c"], "ranks": [2, 0, 1], "who": "bob", "seconds": 4}
    skipped = {"prompt": "q", "candidates": ["a", "b", "c"], "ranks": None}
    path = write(tmp_path / "labels.jsonl", pair, best, "", ranked, skipped, pair)
    assert import_jsonl(store, path) == 5  # equal rows in one file are judgments of their own
    assert import_jsonl(store, path) == 0
    assert [(one.question, one.who, one.ranks, one.seconds) for one in store.judgments()] == [
        (1, "import", (0, 1), None),
        (2, "ann", (1, 1, 0), None),
        (2, "bob", (2, 0, 1), 4.0),
        (2, "import", None, None),
        (1, "import", (0, 1), None),
    ]
    assert store.question(1).candidates == ("good", "bad")


@pytest.mark.parametrize(
    ("row", "got"),
    [
        ("{", "got no JSON"),
        ("[1]", "got a list"),
        ({"prompt": "p"}, "without the texts of all answers"),
        ({"chosen": "a", "rejected": "b"}, r"the columns \['chosen', 'rejected'\]"),
        ({"prompt": "p", "candidates": ["a", 1], "best": 0}, "without the texts"),
        ({"prompt": "p", "candidates": ["a", "b"]}, "candidates without ranks"),
        ({"prompt": "p", "candidates": ["a", "b"], "best": 2}, "best 2 of 2"),
        ({"prompt": "p", "candidates": ["a", "b"], "ranks": [0]}, r"ranks=\(0,\)"),
        ({"prompt": "p", "candidates": ["a", "b"], "ranks": "01"}, "ranks '01'"),
        ({"prompt": "p", "candidates": ["a"], "best": 0}, "two answers or more"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "who": 3}, "who=3"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "when": "soon"}, "soon"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "key": 3}, "key 3"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "picture": "?"}, "not base64"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_added(store, tmp_path, row, got):
    path = write(tmp_path / "labels.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}, row)
    with pytest.raises(ValueError, match=got) as error:
        import_jsonl(store, path)
    assert f"{path}, line 2: " in str(error.value)
    assert store.questions() == []
    assert store.version() == 0


def test_files_that_cannot_be_read_or_written(store, tmp_path):
    with pytest.raises(ValueError, match="not readable"):
        import_jsonl(store, tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="not writable"):
        export_jsonl(store, tmp_path / "no" / "folder.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "p"}' * 100)[:-20])
    with pytest.raises(ValueError, match=r"not readable|got no JSON"):
        import_jsonl(store, tmp_path / "cut.jsonl.gz")

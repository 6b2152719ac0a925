import sqlite3
import subprocess
import sys
from dataclasses import astuple
from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip("sqlalchemy", reason="labels need the extra lrl[labels]")

from lrl_core.preferences.comparison import Comparison
from lrl_core.preferences.store import PreferenceStore, Question

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.db"


@pytest.fixture
def store(path):
    store = PreferenceStore(str(path))
    yield store
    store.close()


def test_questions_come_back_as_they_were_asked(store):
    first = store.ask("Say “hello”\nin Greek", ["γειά", "", "γειά"], picture=PNG, step=7)
    second = store.ask("next", ["a", "b"])
    assert store.questions() == [
        Question(first, "Say “hello”\nin Greek", ("γειά", "", "γειά"), PNG, 7),
        Question(second, "next", ("a", "b"), None, None),
    ]
    assert store.question(second).prompt == "next"
    assert store.questions(limit=1)[0].id == first


def test_the_same_key_twice_is_one_question_and_one_judgment(store):
    question = store.ask("p", ["a", "b"], key="step 3, row 1")
    assert store.ask("p", ["a", "b"], key="step 3, row 1") == question
    judgment = store.judge(question, [0, 1], who="ann", key="x")
    assert store.judge(question, [1, 0], who="ann", key="x") == judgment
    assert [one.ranks for one in store.judgments()] == [(0, 1)]
    assert len(store.questions()) == 1
    assert store.ask("p", ["a", "b"]) != question
    with pytest.raises(ValueError, match="key 'x' for question 1 by 'bob', which is that of question 1 by 'ann'"):
        store.judge(question, [0, 1], who="bob", key="x")


def test_what_counts_are_answers_that_nobody_took_back(store):
    questions = [store.ask(f"p{i}", ["a", "b", "c"]) for i in range(4)]
    store.judge(questions[0], [0, 1, 1], who="ann")
    store.judge(questions[1], None, who="ann")
    back = store.judge(questions[2], [1, 1, 0], who="ann")
    store.judge(questions[2], [0, 0, 1], who="bob")
    store.withdraw(back, "ann")
    expected = [
        Comparison("p0", ("a", "b", "c"), (0, 1, 1), "1/1"),
        Comparison("p2", ("a", "b", "c"), (0, 0, 1), "3/4"),
    ]
    assert store.comparisons() == expected
    assert store.comparisons(until=3) == expected[:1]
    assert [one.withdrawn for one in store.judgments()] == [False, False, True, False]


def test_version_grows_with_every_judgment_and_withdrawal(store):
    question = store.ask("p", ["a", "b"])
    versions = [store.version()]
    judgment = store.judge(question, [0, 1], who="ann", key="k")
    versions.append(store.version())
    store.judge(question, [0, 1], who="ann", key="k")
    versions.append(store.version())
    store.judge(question, None, who="bob")
    versions.append(store.version())
    store.withdraw(judgment, "ann")
    versions.append(store.version())
    store.withdraw(judgment, "ann")
    versions.append(store.version())
    assert versions == [0, 1, 1, 2, 3, 3]


def test_open_questions_those_first_that_fewest_have_judged(store):
    questions = [store.ask(f"p{i}", ["a", "b"]) for i in range(4)]
    store.judge(questions[0], [0, 1], who="ann")
    store.judge(questions[1], None, who="ann")
    taken_back = store.judge(questions[2], [0, 1], who="ann")
    assert [one.id for one in store.questions(open_for="ann")] == questions[3:]
    assert [one.id for one in store.questions(open_for="bob")] == [2, 4, 1, 3]  # a skip is no answer
    store.withdraw(taken_back, "ann")
    assert [one.id for one in store.questions(open_for="ann", limit=5)] == [3, 4]
    assert [one.id for one in store.questions(open_for="bob", limit=2)] == [2, 3]


def test_progress_and_the_last_judgment(store):
    questions = [store.ask(f"p{i}", ["a", "b"]) for i in range(6)]
    for question, seconds in zip(questions, (1.0, 9.0, 3.0, 5.0), strict=False):
        store.judge(question, [0, 1], who="ann", seconds=seconds)
    skipped = store.judge(questions[4], None, who="ann", seconds=100.0)
    store.judge(questions[0], [0, 1], who="bob")
    assert astuple(store.progress("ann")) == (4, 1, 1, 6, 4.0)
    assert astuple(store.progress("cem")) == (0, 0, 6, 6, None)
    assert store.last("ann").id == skipped
    store.withdraw(skipped, "ann")
    assert store.last("ann").question == questions[3]
    assert store.last("ann", questions[0]).id == 1
    assert store.last("cem") is None


def test_when_is_utc(store):
    store.judge(store.ask("p", ["a", "b"]), [0, 1], who="ann", seconds=2)
    age = datetime.now(timezone.utc) - datetime.fromisoformat(store.judgments()[0].when)
    assert timedelta(0) <= age < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda s: s.judge(9, [0, 1], who="ann"), "question 9"),
        (lambda s: s.judge(2**70, [0, 1], who="ann"), "which it does not hold"),
        (lambda s: s.judge(1, [0], who="ann"), r"ranks=\[0\]; expected 2 whole numbers"),
        (lambda s: s.judge(1, [1, 1], who="ann"), "0 for the best"),
        (lambda s: s.judge(1, [0, -1], who="ann"), "ranks"),
        (lambda s: s.judge(1, [0, 1.5], who="ann"), "ranks"),
        (lambda s: s.judge(1, [True, False], who="ann"), "ranks"),
        (lambda s: s.judge(1, [0, 1], who=" "), "who=' '"),
        (lambda s: s.judge(1, [0, 1], who="ann", seconds=float("nan")), "seconds=nan"),
        (lambda s: s.judge(1, [0, 1], who="ann", seconds=-1), "seconds=-1"),
        (lambda s: s.judge(1, [0, 1], who="ann", key="k" * 201), "key"),
        (lambda s: s.withdraw(1, "bob"), "one of 'ann'"),
        (lambda s: s.withdraw(8, "ann"), "judgment 8"),
        (lambda s: s.ask("p", ["a"]), "two answers or more"),
        (lambda s: s.ask("p", "ab"), "two answers or more"),
        (lambda s: s.ask("\ud800", ["a", "b"]), "UTF-8"),
        (lambda s: s.ask("p", ["a", "b"], picture=b"GIF89a"), "PNG"),
        (lambda s: s.question(0), "question 0"),
    ],
)
def test_wrong_words_change_nothing(store, wrong, said):
    store.judge(store.ask("p", ["a", "b"]), [0, 1], who="ann")
    before = store.questions(), store.judgments()
    with pytest.raises(ValueError, match=said) as error:
        wrong(store)
    assert "; expected " in str(error.value)
    assert (store.questions(), store.judgments()) == before


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////nowhere/at/all/labels.db", "unable to open"),
        ("postgresql+nodriver://ann:secret@host/labels", "nodriver"),
        ("nothing://host", "nothing"),
        ("sqlite://", None),
    ],
)
def test_urls(url, said):
    if said is None:
        store = PreferenceStore(url)
        store.judge(store.ask("p", ["a", "b"]), [0, 1], who="ann")
        assert store.version() == 1
        return
    with pytest.raises(ValueError, match=said) as error:
        PreferenceStore(url)
    assert "expected a database of labels" in str(error.value)
    assert "secret" not in str(error.value)


def test_files_of_others_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no database\n" * 100)
    with pytest.raises(ValueError, match="not a database"):
        PreferenceStore(str(text))
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE judgments (verdict TEXT)")
    other.close()
    with pytest.raises(ValueError, match="no such column"):
        PreferenceStore(f"sqlite:///{tmp_path / 'other.db'}")


def test_memory_that_connections_share():
    url = "sqlite:///file:shared-labels?mode=memory&cache=shared&uri=true"
    first, second = PreferenceStore(url), PreferenceStore(url)
    first.judge(first.ask("p", ["a", "b"]), [0, 1], who="ann")
    assert [one.who for one in second.judgments()] == ["ann"]


def test_every_commit_is_written_through_to_the_disk(store):
    with store.transaction() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert values == ["wal", 2, 1]  # 2: FULL


WRITER = """
import sys
from lrl_core.preferences.store import PreferenceStore
store, who = PreferenceStore(sys.argv[1]), sys.argv[2]
questions = [store.ask(f"p{i}", ["a", "b"], key=f"question {i}") for i in range(20)]
for i in range(200):
    store.judge(questions[i % 20], [i % 2, 1 - i % 2], who=who, key=f"{who} {i}")
assert "torch" not in sys.modules, "labelling needs no torch"
"""


def test_two_processes_that_write_at_once_lose_nothing(path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), who]) for who in ("ann", "bob")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    store = PreferenceStore(str(path))
    prompts = {one.id: one.prompt for one in store.questions()}
    assert sorted(prompts.values()) == sorted(f"p{i}" for i in range(20))
    assert store.version() == 400
    for who in ("ann", "bob"):
        said = [(one.key, prompts[one.question], one.ranks) for one in store.judgments() if one.who == who]
        assert said == [(f"{who} {i}", f"p{i % 20}", (i % 2, 1 - i % 2)) for i in range(200)]


def test_a_reader_sees_at_once_what_another_process_wrote(store, path):
    question = store.ask("p", ["a", "b"])
    assert store.comparisons() == []
    code = "import sys; from lrl_core.preferences.store import PreferenceStore as S; "
    code += "print(S(sys.argv[1]).judge(1, [0, 1], who='ann'))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 1
    assert store.version() == 1
    assert store.comparisons()[0].id == f"{question}/1"


def test_writing_does_not_wait_for_readers(store, path):
    question = store.ask("p", ["a", "b"])
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    assert reader.execute("SELECT COUNT(*) FROM judgments").fetchone() == (0,)
    store.judge(question, [0, 1], who="ann")
    assert reader.execute("SELECT COUNT(*) FROM judgments").fetchone() == (0,)  # its own moment in time
    reader.rollback()
    assert reader.execute("SELECT COUNT(*) FROM judgments").fetchone() == (1,)
    reader.close()


def test_two_stores_are_told_apart(store, tmp_path):
    other = PreferenceStore(str(tmp_path / "other.db"))
    assert store.identity() == other.identity() == ""
    store.ask("p", ["a", "b"])
    other.ask("p", ["a", "b"])
    before = store.identity()
    store.ask("q", ["a", "b"])
    assert store.identity() == before != other.identity()


def test_without_sqlalchemy_the_error_names_the_extra():
    code = "import sys; sys.modules['sqlalchemy'] = None\nimport lrl_core.preferences.store"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: PreferenceStore: got no SQLAlchemy" in done.stderr
    assert "pip install 'lrl[labels]'" in done.stderr

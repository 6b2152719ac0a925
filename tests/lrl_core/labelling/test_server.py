import socket
import threading
import time

import pytest

pytest.importorskip("sqlalchemy", reason="labels need the extra lrl[labels]")
pytest.importorskip("starlette", reason="labels need the extra lrl[labels]")
pytest.importorskip("uvicorn", reason="labels need the extra lrl[labels]")

from label_server import label_server
from starlette.testclient import TestClient

from lrl_core.labelling.server import build, shown_order
from lrl_core.preferences.store import PreferenceStore
from lrl_core.preferences.writes import add_question

PNG = b"\x89PNG\r\n\x1a\n..."


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A store with a question of three answers that is never answered, and its server."""
    path = tmp_path_factory.mktemp("labels") / "labels.db"
    store = PreferenceStore(str(path))
    store.ask("first", ["a", "b", "c"], picture=PNG)
    with label_server("--store", path, "--who", "ann") as server:
        yield store, server
    store.close()


def judgment(**changes):
    return {"question": 1, "ranks": [0, 1, 1], "who": "ann", "seconds": 1.5, "key": "k", **changes}


def test_order_is_everybodys_own_and_always_the_same():
    orders = [tuple(shown_order(question, 4, who)) for question in range(500) for who in ("ann", "bob")]
    assert orders == [tuple(shown_order(question, 4, who)) for question in range(500) for who in ("ann", "bob")]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    for place in range(4):  # every answer stands everywhere equally often: 250 +- 5 standard deviations of 13.7
        assert all(abs(sum(order[place] == i for order in orders) - 250) < 70 for i in range(4))
    assert sum(mine == yours for mine, yours in zip(orders[::2], orders[1::2], strict=True)) < 60  # 500 / 24 by chance


def test_question_progress_and_picture(served):
    store, server = served
    said = server.get("/api/question")
    order = shown_order(1, 3, "ann")
    assert said["question"] == {
        "id": 1,
        "prompt": "first",
        "candidates": [{"index": i, "text": "abc"[i]} for i in order],
        "picture": "picture/1",
        "step": None,
    }
    assert (said["who"], said["last"], said["store"]) == ("ann", None, store.identity())
    assert said["progress"] == server.get("/api/progress?who=zoe")
    assert said["progress"]["open"] == 1
    assert server.get("/picture/1") == PNG
    assert [candidate["text"] for candidate in server.get("/api/question?who=zoe")["question"]["candidates"]] == [
        "abc"[i] for i in shown_order(1, 3, "zoe")
    ]


BAD = [
    ({}, 404, "question None"),
    (judgment(question=9), 404, "question 9"),
    (judgment(question="1"), 404, "question '1'"),
    (judgment(question=2**80), 404, "does not hold"),
    (judgment(ranks=[0, 1]), 400, "3 whole numbers"),
    (judgment(ranks=[9, 9, 9]), 400, "0 for the best"),
    (judgment(ranks=9), 400, "ranks=9"),
    (judgment(ranks={"0": 1}), 400, "whole numbers"),
    (judgment(who=""), 400, "who ''"),
    (judgment(who=7), 400, "who 7"),
    (judgment(who="x" * 81), 400, "80"),
    (judgment(who="a\nb"), 400, "printable"),
    (judgment(who="\ud800"), 400, "printable"),
    (judgment(seconds="1"), 400, "seconds='1'"),
    (judgment(seconds=-3), 400, "seconds=-3"),
    (judgment(key=None), 400, "key None"),
    (judgment(key="k" * 300), 400, "200"),
    (judgment(store="another"), 409, "another store"),
    ("{", 400, "no JSON"),
    ("[" * 60_000, 400, "no JSON"),
    ("[]", 400, "JSON list"),
    (b"\xff\xfe", 400, "no JSON"),
    ('{"question": NaN}', 400, "who"),
]


@pytest.mark.parametrize(("body", "status", "said"), BAD, ids=[f"{i}-{row[2]}" for i, row in enumerate(BAD)])
def test_bad_judgments_are_refused_and_change_nothing(served, body, status, said):
    store, server = served
    if body == {}:
        body = {"who": "ann", "key": "k"}
    got = server.ask("POST", "/api/judgment", body)
    assert got[0] == status, got
    assert said in got[1]["error"]
    assert "; expected " in got[1]["error"]
    assert store.version() == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "said"),
    [
        ("GET", "/api/judgment", None, {}, 405, "POST"),
        ("DELETE", "/api/question", None, {}, 405, "GET"),
        ("GET", "/nothing", None, {}, 404, "/api/question"),
        ("GET", "/../../etc/passwd", None, {}, 404, "/api/question"),
        ("GET", "/picture/7", None, {}, 404, "question 7"),
        ("GET", "/picture/x", None, {}, 404, "/picture/ID"),
        ("GET", f"/api/question?who={'x' * 90}", None, {}, 400, "80"),
        ("POST", "/api/undo", {"who": "ann"}, {}, 404, "judgment 0"),
        ("POST", "/api/undo", {"who": "ann", "judgment": "1"}, {}, 404, "judgment '1'"),
        ("POST", "/api/undo", {"judgment": 1}, {}, 400, "who None"),
        ("POST", "/api/judgment", judgment(), {"Content-Type": "text/plain"}, 415, "text/plain"),
        ("POST", "/api/judgment", judgment(), {"Origin": "http://evil.example"}, 403, "evil.example"),
        ("POST", "/api/judgment", judgment(), {"Origin": "null"}, 403, "null"),
        ("GET", "/api/question", None, {"Host": "evil.example"}, 403, "evil.example"),
        ("GET", "/", None, {"Host": "localhost.evil.example:80"}, 403, "evil.example"),
        ("GET", "/", None, {"Host": "[::1"}, 403, "[::1"),
    ],
)
def test_bad_requests(served, method, path, body, headers, status, said):
    store, server = served
    got = server.ask(method, path, body, headers)
    assert got[0] == status, got
    assert said in got[1]["error"]
    assert "; expected " in got[1]["error"]
    assert store.version() == 0


@pytest.mark.parametrize("length", ["Content-Length: 10485760", "Transfer-Encoding: chunked"])
def test_large_bodies_are_refused_before_they_are_read(served, length):
    store, server = served
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        head = f"POST /api/judgment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        chunk = b"0" * 70_000
        sent = b"%x\r\n%s\r\n" % (len(chunk), chunk) if "chunked" in length else b"{"
        connection.sendall(head.encode() + sent)  # and never the rest
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    assert store.version() == 0


def test_browsers_are_told_to_load_nothing_from_elsewhere(served):
    _, server = served
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        head = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")[0].decode().lower()
    policy = next(line for line in head.splitlines() if line.startswith("content-security-policy: "))
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "x-content-type-options: nosniff" in head


def test_judging_undoing_and_sending_again(tmp_path):
    store = PreferenceStore(str(tmp_path / "labels.db"))
    questions = [store.ask(f"p{i}", ["a", "b"]) for i in range(2)]
    with label_server("--store", tmp_path / "labels.db") as server:
        first = {"question": questions[0], "ranks": [1, 0], "who": " ann ", "seconds": 2.25, "key": "one"}
        status, said = server.ask("POST", "/api/judgment", first)
        assert status == 200
        assert (said["judgment"], said["last"], said["question"]["id"]) == (1, 1, questions[1])
        assert (said["progress"]["answered"], said["progress"]["open"]) == (1, 1)
        assert server.ask("POST", "/api/judgment", first) == (200, said)  # sent again
        assert [(one.who, one.ranks, one.seconds) for one in store.judgments()] == [("ann", (1, 0), 2.25)]
        status, refused = server.ask("POST", "/api/judgment", {**first, "key": "two"})  # another page of ann's
        assert status == 409
        assert "second judgment" in refused["error"]

        assert server.ask("POST", "/api/undo", {"who": "bob", "judgment": 1})[0] == 404  # not his
        status, undone = server.ask("POST", "/api/undo", {"who": "ann", "judgment": 1})
        assert (status, undone["question"]["id"], undone["last"]) == (200, questions[0], None)
        assert server.ask("POST", "/api/undo", {"who": "ann", "judgment": 1}) == (200, undone)
        assert store.comparisons() == []
        server.ask("POST", "/api/judgment", {**first, "key": "three"})
        skipped = server.ask("POST", "/api/judgment", {**first, "question": 2, "ranks": None, "key": "four"})[1]
        assert skipped["question"] is None
        assert skipped["progress"]["skipped"] == 1
        server.ask("POST", "/api/judgment", {**first, "who": "bob", "key": "five"})
        assert server.get("/api/progress")["agreement"] == {"questions": 1, "same": 1.0, "alpha": None}
        store.ask("a new one", ["a", "b"])  # by a training that runs
        assert server.get("/api/question?who=ann")["question"]["prompt"] == "a new one"


def test_other_addresses_need_the_token(tmp_path):
    with label_server("--store", tmp_path / "labels.db", "--host", "0.0.0.0") as server:
        token = server.url.partition("?token=")[2]
        assert len(token) > 20
        for path in ("/", "/page.js", "/api/question", "/picture/1", f"/api/question?token={token}", "/?token=wrong"):
            status, said = server.ask("GET", path)
            assert status == 401
            assert "token" in said["error"]
        assert server.ask("POST", "/api/judgment", judgment())[0] == 401
        host = {"Host": "10.0.0.7:1"}
        assert server.ask("GET", "/api/question", headers={**host, "Authorization": f"Bearer {token}"})[0] == 200
        assert server.ask("GET", f"/?token={token}", headers=host)[0] == 303
        cookie = {"Cookie": f"lrl-label-{server.port}={token}"}
        status, said = server.ask("GET", "/api/question", headers={**host, **cookie})
        assert (status, said["who"], said["question"]) == (200, "", None)  # the page asks who it is


def test_a_database_that_is_locked_is_tried_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr("lrl_core.preferences.tables._WAIT", 50)
    store = PreferenceStore(str(tmp_path / "labels.db"))
    store.ask("p", ["a", "b", "c"])
    client = TestClient(build(store, "ann"), base_url="http://localhost")
    with store.transaction():
        answer = client.post("/api/judgment", json=judgment())
    assert answer.status_code == 503
    assert "database is locked" in answer.json()["error"]
    assert client.post("/api/judgment", json=judgment()).status_code == 200


def test_killed_servers_lose_nothing_and_double_nothing(tmp_path):
    store = PreferenceStore(str(tmp_path / "labels.db"))
    with store.transaction() as connection:
        for i in range(60):
            add_question(connection, f"p{i}", ["a", "b"])
    acknowledged, sent_again = [], []

    def label():
        for i in range(60):
            row = {"question": i + 1, "ranks": [i % 2, 1 - i % 2], "who": "ann", "seconds": 0.1, "key": f"key {i}"}
            while True:
                try:
                    status, said = server.ask("POST", "/api/judgment", row)
                except OSError:  # the server is away, or was killed while it answered
                    sent_again.append(i)
                    time.sleep(0.02)
                    continue
                assert status == 200, said
                acknowledged.append(i)
                break

    with label_server("--store", tmp_path / "labels.db") as server:
        labeller = threading.Thread(target=label)
        labeller.start()
        for kills in (1, 2):
            while len(acknowledged) < 20 * kills:
                time.sleep(0.001)
            seen = list(acknowledged)
            server.kill()
            kept = {one.key for one in store.judgments()}
            assert {f"key {i}" for i in seen} <= kept
            server.start(server.port)
        labeller.join(60)
        assert not labeller.is_alive()
    assert sent_again
    assert [(one.key, one.question) for one in store.judgments()] == [(f"key {i}", i + 1) for i in range(60)]

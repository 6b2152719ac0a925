import json
import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.scoring import PluginError, judge
from lrl_core.testing.rewards import check_reward, example_rollout, facts_of
from lrl_plugins.rewards.json_requests import Endpoint, RequestError
from lrl_plugins.rewards.remote import Remote

ROLLOUT = example_rollout()
FACTS = facts_of(ROLLOUT)
LENGTHS = [float(len(text) + 1) for text in ROLLOUT.texts]  # never 0: a zero was not the server's


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def serving(answer):
    """A server on this machine; `answer(number, body)` gives (status, bytes) or a generator of bytes to send slowly."""
    asked, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                asked.append((body, dict(self.headers)))
                number = len(asked)
            status, content = answer(number, body)
            self.send_response(status)
            self.end_headers()
            try:
                for piece in [content] if isinstance(content, bytes) else content:
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:  # the other side has given up
                pass

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/judge", asked
    finally:
        server.shutdown()
        server.server_close()


def lengths(body):
    return [len(text) + 1 for text in body["texts"]]


def rewards(values):
    return 200, json.dumps({"rewards": values}).encode()


def good(number, body):
    return rewards(lengths(body))


def scored(reward, rollout=ROLLOUT):
    bind_all(reward, FACTS)
    return judge(reward, rollout)


def test_conforms():
    with serving(good) as (url, _):
        check_reward(lambda: Remote(url, ["references", "prompts", "examples"], batch_size=4))


def test_batches_go_out_and_come_back_in_order():
    def uneven(number, body):
        time.sleep(0.1 if number == 1 else 0)
        return good(number, body)

    with serving(uneven) as (url, asked):
        signal = scored(Remote(url, ["references", "examples"], batch_size=2, workers=3))
        assert signal.total.tolist() == LENGTHS
        assert signal.parts.keys() == {"Remote"}
        bodies = sorted((body for body, _ in asked), key=lambda body: ROLLOUT.texts.index(body["texts"][0]))
    assert [body["texts"] for body in bodies] == [list(ROLLOUT.texts[i : i + 2]) for i in (0, 2, 4)]
    assert bodies[0]["references"] == [list(row) for row in ROLLOUT.prompts.references[:2]]
    assert bodies[2]["examples"] == [{"id": "picture-2"}] * 2


def test_several_requests_are_under_way_at_once():
    together = threading.Barrier(3, timeout=5)

    def waiting(number, body):
        together.wait()  # broken unless three requests meet here
        return good(number, body)

    with serving(waiting) as (url, _):
        assert scored(Remote(url, batch_size=2, workers=3)).total.tolist() == LENGTHS


def test_null_is_nan():
    with serving(lambda number, body: rewards([None, *lengths(body)[1:]])) as (url, _):
        total = scored(Remote(url)).total
    assert total.isnan().tolist() == [True] + [False] * 5


def test_every_third_request_fails_and_only_its_rows_are_nan(caplog):
    with serving(lambda number, body: (503, b"busy") if number % 3 == 0 else good(number, body)) as (url, _):
        reward = Remote(url, batch_size=1, workers=1, retries=0)
        total = scored(reward).total
    assert total.isnan().tolist() == [False, False, True] * 2
    assert total[[0, 1, 3, 4]].tolist() == [LENGTHS[i] for i in (0, 1, 3, 4)]
    assert len(caplog.records) == 2
    assert "Remote (lrl" in caplog.text
    assert "status 503 (attempt 1); they are not judged (NaN)" in caplog.text


def test_retries_mend_it():
    with serving(lambda number, body: (503, b"busy") if number % 3 == 0 else good(number, body)) as (url, asked):
        total = scored(Remote(url, batch_size=1, workers=1, retries=1, pause=0.0)).total
    assert total.tolist() == LENGTHS
    assert len(asked) == 8  # six, and the third and sixth again


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda n, body: rewards(lengths(body)[:-1]), "gave 5 values; expected 6 numbers"),
        (lambda n, body: rewards([]), "gave 0 values"),
        (lambda n, body: rewards(1.0), "gave a float"),
        (lambda n, body: rewards(["1"] * 6), "of type str"),
        (lambda n, body: (200, b'{"rewards": [Infinity, 1, 1, 1, 1, 1]}'), "gave inf for text 0"),
        (lambda n, body: (200, b'{"scores": []}'), "no 'rewards' in the answer"),
        (lambda n, body: (200, b"[1, 1, 1, 1, 1, 1]"), "no 'rewards' in the answer"),
        (lambda n, body: (200, b"<html>gateway</html>"), "no JSON"),
        (lambda n, body: (200, b""), "no JSON"),
        (lambda n, body: (400, b"{}"), r"status 400 (attempt 1)"),
        (lambda n, body: (500, b"{}"), r"status 500 (attempt 2)"),
    ],
)
def test_wrong_answers_are_nan_and_never_zero(answer, reason, caplog):
    with serving(answer) as (url, _):
        total = scored(Remote(url, retries=1, pause=0.0)).total
    assert total.isnan().all()
    assert reason in caplog.text


def test_a_slow_server_is_given_up(caplog):
    def slow(number, body):
        time.sleep(1.5 if number == 1 else 0)
        return good(number, body)

    with serving(slow) as (url, _):
        began = time.monotonic()
        total = scored(Remote(url, batch_size=3, workers=1, time_limit=0.3, retries=0)).total
        assert time.monotonic() - began < 1.4
    assert total.isnan().tolist() == [True] * 3 + [False] * 3
    assert "timed out" in caplog.text


def test_an_answer_that_drips_is_given_up():
    def drip():
        for _ in range(40):
            yield b" "
            time.sleep(0.05)

    with serving(lambda number, body: (200, drip())) as (url, _):
        began = time.monotonic()
        assert scored(Remote(url, time_limit=0.3, retries=0)).total.isnan().all()
        assert time.monotonic() - began < 1.5


def test_a_server_that_is_not_there_is_nan(caplog):
    with serving(good) as (url, _):
        pass
    with caplog.at_level(logging.WARNING):
        assert scored(Remote(url, retries=0)).total.isnan().all()
    assert "refused" in caplog.text


def test_the_token_is_sent_and_not_logged(monkeypatch, caplog):
    monkeypatch.setenv("JUDGE_TOKEN", "s3cret")
    with serving(lambda number, body: (200, b"no")) as (url, asked):
        scored(Remote(url.replace("127", "user:pass@127") + "?key=hidden", token_variable="JUDGE_TOKEN", retries=0))
    with serving(good) as (url, asked):
        scored(Remote(url, token_variable="JUDGE_TOKEN"))
        assert asked[0][1]["Authorization"] == "Bearer s3cret"
    assert "failed" in caplog.text
    assert not any(word in caplog.text for word in ("s3cret", "pass", "hidden"))


def test_pauses_grow(monkeypatch):
    pauses = []
    monkeypatch.setattr("lrl_plugins.rewards.json_requests.time.sleep", pauses.append)
    with serving(lambda number, body: (500, b"")) as (url, _), pytest.raises(RequestError, match="attempt 4"):
        Endpoint(url, 5.0, 3, 0.5).ask({})
    assert pauses == [0.5, 1.0, 2.0]


def test_rows_that_are_no_json_stop_the_run():
    rows = replace(ROLLOUT, prompts=replace(ROLLOUT.prompts, examples=({"picture": torch.zeros(1)},) * 6))
    with serving(good) as (url, _), pytest.raises(PluginError, match="not JSON serializable"):
        scored(Remote(url, ["examples"]), rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "file:///etc/passwd"}, "expected http://host/path"),
        ({"url": "judge:8000"}, "expected http://host/path"),
        ({"send": ["texts"]}, "expected some of references, prompts, examples"),
        ({"time_limit": 0.0}, "time_limit > 0"),
        ({"retries": -1}, "retries and pause >= 0"),
        ({"batch_size": 0}, "of at least 1"),
        ({"token_variable": "NO_SUCH_TOKEN"}, "'NO_SUCH_TOKEN', which is not set"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Remote(**{"url": "http://localhost/judge"} | arguments)

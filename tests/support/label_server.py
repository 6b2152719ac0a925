"""`lrl label` in a process of its own, and plain HTTP to it."""

import http.client
import json
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import urlsplit


class LabelServer:
    """A running server; `url` is what it printed."""

    def __init__(self, *options):
        self.options = options
        self.process = None
        self.url = ""
        self.start("0")

    def start(self, port):
        """Start it, at the same port after a crash."""
        command = [sys.executable, "-m", "lrl_core.cli", "label", *map(str, self.options), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("Label at "), line
        self.url = line.split()[-1]
        self.port = urlsplit(self.url).port

    def kill(self):
        """End it without a chance to tidy up (SIGKILL)."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, method, path, body=None, headers=()):
        """Status, and what the JSON (or else the bytes) of the answer say."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = json.dumps(body) if isinstance(body, dict) else body
        kind = {"Content-Type": "application/json"} if sent is not None else {}
        try:
            connection.request(method, path, sent, {**kind, **dict(headers)})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        is_json = (answer.headers["content-type"] or "").startswith("application/json")
        return answer.status, json.loads(content) if is_json else content

    def get(self, path):
        """What a GET that succeeds says."""
        status, said = self.ask("GET", path)
        assert status == 200, said
        return said


@contextmanager
def label_server(*options):
    """A server that is killed in the end."""
    server = LabelServer(*options)
    try:
        yield server
    finally:
        server.kill()

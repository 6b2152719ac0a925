"""JSON over HTTP with a time limit, retries and pauses between them; the standard library and nothing else."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_AGAIN = (408, 425, 429)
"""Client errors after which the same request may succeed later; all server errors (5xx) are of this kind, too."""
_CHUNK = 1 << 16


class RequestError(Exception):
    """No usable answer; the message says why."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final
        """Whether asking again is pointless."""


@dataclass(frozen=True)
class Endpoint:
    """Where requests go and how patient they are."""

    url: str
    """http:// or https://."""
    time_limit: float
    """Seconds until a request is given up, however much of the answer has come."""
    retries: int
    """How often a failed request is made again."""
    pause: float
    """Seconds before the first retry; twice as long before each further one."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request."""

    def ask(self, body: Any) -> Any:
        """The answer to a JSON body, as JSON; RequestError after the last attempt."""
        for attempt in range(self.retries + 1):
            try:
                return self._once(json.dumps(body).encode())
            except RequestError as failure:
                if failure.final or attempt == self.retries:
                    raise RequestError(f"{failure} (attempt {attempt + 1})", final=True) from failure
            time.sleep(self.pause * 2**attempt)
        raise AssertionError("unreachable")

    def _once(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self.headers}
        request = urllib.request.Request(self.url, data=body, headers=headers)
        deadline = time.monotonic() + self.time_limit
        try:
            with urllib.request.urlopen(request, timeout=self.time_limit) as response:
                answer = _read(response, deadline)
        except urllib.error.HTTPError as error:
            error.close()
            raise RequestError(f"status {error.code}", final=error.code < 500 and error.code not in _AGAIN) from error
        except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, broken off
            raise RequestError(f"{type(error).__name__}: {error}") from error
        try:
            return json.loads(answer)
        except ValueError as error:
            raise RequestError(f"no JSON: {answer[:60]!r}") from error


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole body; TimeoutError at the deadline, for the socket's own limit starts anew with every piece."""
    pieces = []
    while piece := response.read1(_CHUNK):
        pieces.append(piece)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    if response.length:  # what the server announced and did not send
        raise http.client.IncompleteRead(b"".join(pieces), response.length)
    return b"".join(pieces)

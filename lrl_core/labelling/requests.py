"""What the label server lets in: who may ask, how large a request may be, and what every answer forbids a browser."""

import hmac
import json
from typing import Any
from urllib.parse import urlsplit

from lrl_core.labelling import LOCAL

try:
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.requests import Request
    from starlette.responses import JSONResponse, RedirectResponse, Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise ImportError(
        "lrl label: got no Starlette, which serves the page; expected it to be installed. Install it with "
        "`pip install 'lrl[labels]'`."
    ) from error

_LIMIT = 64 * 1024
"""Bytes of a request; a judgment has some hundred."""
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class RequestError(Exception):
    """A request that is not done, and why in four parts.

    Args:
        status: HTTP status.
        text: Who, what was got, what was expected, what to do.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    def response(self) -> Response:
        """What the browser gets; what it has not sent yet is not read any more."""
        headers = {"connection": "close"} if self.status == 413 else None
        return JSONResponse({"error": str(self)}, self.status, headers)


class Guard:
    """Lets a request through to the server, or says why not.

    Without a token only this machine's own names are served, so that no other web site can reach the page under a name
    of its own (DNS rebinding); with one every request needs it, once as ?token= and then as a cookie, or as
    `Authorization: Bearer`. Requests that another site's page sends are refused in both cases.

    Args:
        app: The server.
        token: The secret; None on this machine.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            answer: ASGIApp = self._welcome(Request(scope)) or self.app
        except RequestError as refusal:
            answer = refusal.response()
        await answer(scope, receive, send_guarded)

    def _welcome(self, request: Request) -> Response | None:
        """None for those who may pass; the cookie for those who bring the token in the address."""
        host = request.headers.get("host", "")
        if self.token is None and _name(host) not in LOCAL:
            raise RequestError(
                403,
                f"lrl label: got a request for the host {host!r}; expected localhost or 127.0.0.1. Open the address "
                "that lrl label has printed, or start it with --host for other machines.",
            )
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise RequestError(
                403,
                f"lrl label: got a request from a page of {origin}; expected one from its own page. Open the address "
                "that lrl label has printed.",
            )
        return None if self.token is None else self._admitted(request, self.token)

    def _admitted(self, request: Request, token: str) -> Response | None:
        server = request.scope.get("server") or ("", "")
        cookie = f"lrl-label-{server[1]}"  # cookies do not tell ports apart
        if request.url.path == "/" and _same(request.query_params.get("token"), token):
            welcome = RedirectResponse("/", 303)
            welcome.set_cookie(cookie, token, httponly=True, samesite="lax")
            return welcome
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not _same(request.cookies.get(cookie), token) and not _same(bearer, token):
            raise RequestError(
                401,
                "lrl label: got no token, or not the right one; expected the one of this server. Open the whole "
                "address that lrl label has printed.",
            )
        return None


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same(got: str | None, token: str) -> bool:
    return got is not None and hmac.compare_digest(got.encode(errors="replace"), token.encode())


async def said(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; RequestError where there is none, before much is read."""
    check_type(request.headers)
    body = b""
    if int(request.headers.get("content-length", "0")) <= _LIMIT:  # the server has checked that it is a number
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LIMIT:
                break
        else:
            return _object(body)
    raise RequestError(
        413, f"lrl label: got more than {_LIMIT} bytes; expected a judgment of a few hundred. Send one judgment only."
    )


def check_type(headers: Headers) -> None:
    """JSON only: other types could come from another site's page without the browser asking first."""
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            415, f"lrl label: got the content type {kind!r}; expected application/json. Set the header Content-Type."
        )


def _object(body: bytes) -> dict[str, Any]:
    try:
        row = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            400, f"lrl label: got no JSON ({error}); expected a JSON object. Correct the body."
        ) from error
    if not isinstance(row, dict):
        raise RequestError(400, f"lrl label: got a JSON {type(row).__name__}; expected an object. Correct the body.")
    return row

"""The label server: the next question as JSON, judgments and undo, progress, pictures and the page itself."""

import hashlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib.resources import files
from threading import Lock
from typing import Any

from lrl_core.labelling import LONGEST_NAME
from lrl_core.labelling.requests import Guard, RequestError, said
from lrl_core.preferences.agreement import Agreement, agreement
from lrl_core.preferences.store import PreferenceStore, Question
from lrl_core.preferences.tables import exc

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp
except ImportError as error:
    raise ImportError(
        "lrl label: got no Starlette or no uvicorn, which serve the page; expected both to be installed. Install them "
        "with `pip install 'lrl[labels]'`."
    ) from error

_FILES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")} | {
    "/page.css": ("page.css", "text/css")
}


def build(store: PreferenceStore, who: str = "", token: str | None = None) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        store: Where questions and judgments are.
        who: Name of the labeller until the page says another one; "" = the page asks for it.
        token: What requests must bring; None: only this machine may ask.
    """
    service = Service(store, who)
    routes = [
        Route("/api/question", service.get_question),
        Route("/api/progress", service.get_progress),
        Route("/api/judgment", _post(service.judge), methods=["POST"]),
        Route("/api/undo", _post(service.undo), methods=["POST"]),
        Route("/picture/{id:int}", service.get_picture),
        *(Route(path, _file(*file)) for path, file in _FILES.items()),
    ]
    handlers: Any = {RequestError: _refused, HTTPException: _not_there, exc.SQLAlchemyError: _busy}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token)


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; OSError where it is taken.

    Args:
        host: Name or address of this machine.
        port: Number of the port; 0 = any that is free.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart gets its port back at once
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer requests until Ctrl-C."""
    options: dict[str, Any] = {"lifespan": "off", "log_level": "warning", "access_log": False, "server_header": False}
    uvicorn.Server(uvicorn.Config(app, **options, timeout_graceful_shutdown=2)).run(sockets=[listener])


def shown_order(question: int, candidates: int, who: str) -> list[int]:
    """In which order a labeller sees the candidates: another one for everybody and every question, always the same.

    Args:
        question: Id of the question.
        candidates: How many there are.
        who: Name of the labeller.
    """
    return sorted(range(candidates), key=lambda i: hashlib.sha256(f"{question}/{i}/{who}".encode()).digest())


class Service:
    """What the page asks for.

    Args:
        store: Where questions and judgments are.
        who: Name of the labeller where a request has none; "" = no name yet.
    """

    def __init__(self, store: PreferenceStore, who: str) -> None:
        self._store = store
        self._who = who
        self._lock = Lock()
        self._agreement: tuple[int, Agreement] = (-1, Agreement(0, None, None))

    def get_question(self, request: Request) -> Response:
        """GET /api/question?who=NAME: the next question that waits for this labeller (null: none), and the progress."""
        return JSONResponse(self._state(self._name(request.query_params.get("who"))))

    def get_progress(self, request: Request) -> Response:
        """GET /api/progress?who=NAME."""
        return JSONResponse(self._progress(self._name(request.query_params.get("who"))))

    def get_picture(self, request: Request) -> Response:
        """GET /picture/ID: the PNG of a question."""
        picture = self._question(request.path_params["id"]).picture
        if picture is None:
            id = request.path_params["id"]
            raise RequestError(
                404, f"lrl label: got question {id}, which has no picture; expected one that has. Ask no more."
            )
        return Response(picture, media_type="image/png")

    def judge(self, row: dict[str, Any]) -> dict[str, Any]:
        """POST /api/judgment {question, ranks, who, seconds, key, store}: keep it, and give the next question.

        Ranks are in stored order of the candidates; null skips. The same key again is answered in the same way and
        changes nothing. `store` (optional) is what /api/question said, so that no other store gets the judgment.
        """
        who, key = self._named(row), row.get("key")
        if not isinstance(key, str):
            raise RequestError(
                400, f"lrl label: got key {key!r}; expected a text of the sender's own. Make one for every judgment."
            )
        if row.get("store", self._store.identity()) != self._store.identity():
            raise RequestError(
                409,
                "lrl label: got a judgment that belongs to another store; expected one of the store that is served at "
                "this address. Serve the other store again to send it.",
            )
        question = self._question(row.get("question"))
        with self._lock:  # of two pages of one labeller only the first may answer
            earlier = self._store.last(who, question.id)
            if earlier is not None and earlier.key != key:
                raise RequestError(
                    409,
                    f"lrl label: got a second judgment of question {question.id} by {who!r}; expected one of each "
                    "labeller, and the first one counts. Undo it first to change it.",
                )
            try:
                ranks, seconds = row.get("ranks"), row.get("seconds")
                id = self._store.judge(question.id, ranks, who=who, seconds=seconds, key=key)
            except ValueError as error:
                raise RequestError(400, f"lrl label: {error}") from error
        return {"judgment": id, **self._state(who)}

    def undo(self, row: dict[str, Any]) -> dict[str, Any]:
        """POST /api/undo {judgment, who}: it no longer counts, and its question is the next one. Twice is once."""
        who, id = self._named(row), row.get("judgment", 0)
        made = self._store.judgment(id)
        if made is None or made.who != who:
            raise RequestError(
                404, f"lrl label: got judgment {id!r}; expected one of the judgments of {who!r}. Load the page again."
            )
        self._store.withdraw(made.id, who)
        return self._state(who, self._question(made.question))

    def _state(self, who: str, question: Question | None = None) -> dict[str, Any]:
        """All that the page shows.

        Args:
            who: Name of the labeller; "" = nobody yet, and no question is given.
            question: The one to show; None: the next that is open.
        """
        if who and question is None:
            question = next(iter(self._store.questions(open_for=who, limit=1)), None)
        last = self._store.last(who)
        return {
            "store": self._store.identity(),
            "who": who,
            "question": None if question is None else _shown(question, who),
            "last": None if last is None else last.id,
            "progress": self._progress(who),
        }

    def _progress(self, who: str) -> dict[str, Any]:
        version = self._store.version()
        if version != self._agreement[0]:
            counted = (one for one in self._store.judgments() if not one.withdrawn)
            alike = agreement((one.question, one.who, one.ranks) for one in counted if one.ranks is not None)
            self._agreement = (version, alike)
        return {**asdict(self._store.progress(who)), "agreement": self._agreement[1]._asdict()}

    def _question(self, id: Any) -> Question:
        try:
            return self._store.question(id)
        except ValueError as error:
            raise RequestError(404, f"lrl label: {error}") from error

    def _named(self, row: dict[str, Any]) -> str:
        if not isinstance(row.get("who"), str) or not row["who"].strip():
            raise RequestError(400, f"lrl label: got who {row.get('who')!r}; expected a name. Say who judges.")
        return self._name(row["who"])

    def _name(self, who: str | None) -> str:
        """The name that a request gives, or the one with which the server was started."""
        name = (who or "").strip() or self._who
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise RequestError(
                400,
                f"lrl label: got who {name[:LONGEST_NAME]!r}; expected a name of at most {LONGEST_NAME} printable "
                "letters. Shorten it.",
            )
        return name


def _shown(question: Question, who: str) -> dict[str, Any]:
    order = shown_order(question.id, len(question.candidates), who)
    return {
        "id": question.id,
        "prompt": question.prompt,
        "candidates": [{"index": i, "text": question.candidates[i]} for i in order],
        "picture": None if question.picture is None else f"picture/{question.id}",
        "step": question.step,
    }


def _post(act: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        row = await said(request)
        return JSONResponse(await run_in_threadpool(act, row))

    return answer


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = files("lrl_core.labelling").joinpath(name).read_bytes()

    def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _refused(request: Request, error: RequestError) -> Response:
    return error.response()


def _not_there(request: Request, error: HTTPException) -> Response:
    got = f"lrl label: got {request.method} {request.url.path}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("allow") or (error.headers or {}).get("Allow", "another method")
        text = f"{got}; expected {allowed} there. Use that method."
    else:
        text = f"{got} ({error.detail}); expected /, /api/question, /api/judgment, /api/undo, /api/progress or "
        text += "/picture/ID. Correct the address."
    return JSONResponse({"error": text}, error.status_code, error.headers)


def _busy(request: Request, error: exc.SQLAlchemyError) -> Response:
    cause = getattr(error, "orig", None) or error
    text = f"lrl label: got no answer from the database of labels ({cause}); expected it to be there. Try it again."
    return JSONResponse({"error": text}, 503)

"""`lrl label`: people say on a page which answer is best, and labels go in and out as JSON lines."""

import getpass
import secrets
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from lrl_core.commands import CommandError
from lrl_core.labelling import LOCAL, LONGEST_NAME
from lrl_core.preferences.reading import FILE

if TYPE_CHECKING:
    import argparse
    import socket

    from lrl_core.preferences.store import PreferenceStore

_PORT = 8642
"""Where the page is found if nobody else is there: what a browser has kept after a crash belongs to an address."""

_DESCRIPTION = """Say which of several answers is best, on a page in the browser.

A run that asks for labels writes its questions into labels.db in its run folder; this command shows them, one at a
time, and keeps what you choose. Training sees an answer as soon as it is given. Keys: 1 to 9 choose, t several that
are equally good, s skips, u takes the last answer back. Ctrl-C ends the server; every answer is on disk by then."""

_EXAMPLES = """examples:
  lrl label --run runs/preference-online/version_0                    the page at http://127.0.0.1:8642/
  lrl label --run runs/preference-online/version_0 --who ann          answers are ann's
  lrl label --run ... --host 0.0.0.0                                  for others in your network: give them the
                                                                      address that is printed, which holds a token
  lrl label --run ... --export labels.jsonl                           write what was answered
  lrl label --run ... --import labels.jsonl                           read it into another run; twice adds nothing
  lrl label --store postgresql+psycopg://me:secret@host/labels        a database of your own

Needs `pip install 'lrl[labels]'`."""


def main(arguments: list[str]) -> int:
    """Serve the page, or export or import labels."""
    options = _parser().parse_args(arguments)
    with closing(_store(options)) as store:
        if options.export is None and options.import_ is None:
            return _serve(store, options)
        return _move(store, options)


def _parser() -> "argparse.ArgumentParser":
    import argparse

    parser = argparse.ArgumentParser(
        prog="lrl label",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--run", metavar="DIR", help=f"Run folder; its questions and labels are in {FILE}.")
    where.add_argument("--store", metavar="URL", help="Another store: path of a SQLite file or a SQLAlchemy URL.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--export", metavar="FILE", help="Write all judgments as JSON lines (.gz too), and end.")
    what.add_argument(
        "--import",
        dest="import_",
        metavar="FILE",
        help='Add judgments from JSON lines (.gz too), and end: exported rows, {"prompt", "chosen", "rejected"}, or '
        '{"prompt", "candidates"} with "ranks" (0 = best) or "best" (which, from 0).',
    )
    parser.add_argument("--who", metavar="NAME", help="Whose answers these are; the page can change it.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="Address to serve at (default: 127.0.0.1, this machine only)."
    )
    parser.add_argument("--port", type=int, help=f"Port (default: {_PORT}, or any free one where that is taken).")
    parser.add_argument(
        "--token", help="Secret that requests must bring; at other addresses than this machine's own one is made."
    )
    return parser


def _store(options: "argparse.Namespace") -> "PreferenceStore":
    if options.run is not None and not Path(options.run).is_dir():
        raise CommandError(
            f"lrl label: --run is {options.run}, which is no folder; expected the folder of a run, such as "
            "runs/preference-online/version_0. Start the run first, or correct the path."
        )
    try:
        from lrl_core.preferences.store import PreferenceStore

        return PreferenceStore(str(Path(options.run) / FILE) if options.run is not None else options.store)
    except (ImportError, ValueError) as error:
        raise CommandError(str(error)) from error


def _move(store: "PreferenceStore", options: "argparse.Namespace") -> int:
    from lrl_core.preferences.jsonl import export_jsonl, import_jsonl

    try:
        if options.export is not None:
            print(f"Judgments written to {options.export}: {export_jsonl(store, options.export)}")
        else:
            print(f"Judgments added from {options.import_}: {import_jsonl(store, options.import_)}")
    except ValueError as error:
        raise CommandError(f"lrl label: {error}") from error
    return 0


def _serve(store: "PreferenceStore", options: "argparse.Namespace") -> int:
    try:
        from lrl_core.labelling import server
    except ImportError as error:
        raise CommandError(str(error)) from error
    local = options.host in LOCAL
    token = options.token or (None if local else secrets.token_urlsafe(16))
    app = server.build(store, _who(options, local), token)
    with _listener(options) as listener:
        progress = store.progress(_who(options, local))
        secret = "" if token is None else f"?token={token}"
        print(f"Label at {_address(options.host, listener)}{secret}", flush=True)
        print(f"Questions: {progress.total}, of which {progress.open} are open. Ctrl-C ends.", flush=True)
        try:
            server.serve(app, listener)
        except KeyboardInterrupt:
            print()
    return 0


def _who(options: "argparse.Namespace", local: bool) -> str:
    """Name of the labeller; "" where only the page can know."""
    if options.who is not None:
        name = options.who.strip()
        if not name or not name.isprintable() or len(name) > LONGEST_NAME:
            raise CommandError(
                f"lrl label: --who is {options.who!r}; expected a name of at most {LONGEST_NAME} printable letters. "
                "Leave the option out for your login name."
            )
        return name
    if not local:
        return ""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return ""


def _listener(options: "argparse.Namespace") -> "socket.socket":
    from lrl_core.labelling.server import listen

    if options.port is not None and not 0 <= options.port < 2**16:
        raise CommandError(f"lrl label: --port is {options.port}; expected 0 to {2**16 - 1}. 0 takes any free one.")
    try:
        if options.port is not None:
            return listen(options.host, options.port)
        try:
            return listen(options.host, _PORT)
        except OSError:
            return listen(options.host, 0)
    except OSError as error:
        where = f"--host {options.host}" + ("" if options.port is None else f" and --port {options.port}")
        raise CommandError(
            f"lrl label: {where} cannot be served ({error}); expected an address of this machine and a free port. "
            "Leave both out for a free port of this machine."
        ) from error


def _address(host: str, listener: "socket.socket") -> str:
    """What to type into a browser."""
    import socket

    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}/"

"""Watch runs in a browser, while they go on or afterwards.

    python -m dashboard RUN_DIR [RUN_DIR ...] [--port N] [--host ADDRESS] [--name HOST[:PORT]]
                        [--token auto|always|none]

prints the address of the page. It reads the run folders and nothing else. Where other machines can reach it, the
address has a token, without which nobody can read them. Needs the extra `dashboard`.
"""

import argparse
import errno
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from agents.types import UserError, require
from envs.extras import advice
from evolution.commands import a_path, command
from trainers.cli.command_line import run_command

LOOPBACK = ("127.0.0.1", "localhost", "::1")
USUAL_PORT = 8600
TOKENS = {
    "auto": "where others can reach the page",
    "always": "also on loopback, for others who use this machine",
    "none": "nowhere: all who can reach the page can read it",
}
"""When the page's address has a token, and a request must show it."""
UNREAD = 256 << 10
"""Bytes of an answer that the system keeps for a client that reads slowly; with more, it would look like one that does
not read at all, as what is read is noticed in steps of a third of this."""


def serve(
    run_dirs: list[Path], host: str, port: int | None, names: list[str], ending: str = "", tokens: str = "auto"
) -> None:
    """Serve the page until interrupted, and print its address and how it ends.

    port: None for the usual one, or any that is free where that is taken. names: others by which browsers may call it,
    with the port where that is another, as behind a forwarded port or a proxy.
    tokens: a word of TOKENS.
    Raises UserError for what is no run, a host that is not this machine, a port that is taken, what is no name, or a
    missing extra.
    """
    require(port is None or 0 <= port <= 65535, "port", port, "between 0 (any that is free) and 65535")
    try:
        import uvicorn
        import websockets  # noqa: F401, which uvicorn would miss only when it serves

        from dashboard.reading import Run
        from dashboard.server import application, authorities, authority
        from dashboard.sockets import bounded
    except ImportError as error:
        raise UserError(f"{error}; {advice('dashboard')} brings what the page needs") from error
    runs = [Run(folder) for folder in run_dirs]
    listener = _listen(host, port)
    place, port = listener.getsockname()[:2]
    address, machine = ip_address(place), socket.gethostname()
    hosts = [authority(name, port) for name in (*LOOPBACK, host, *([machine] if address.is_unspecified else []))]
    others = [other for name in names for other in authorities(name, port)]
    has_token = tokens == "always" or (tokens == "auto" and not address.is_loopback)
    token = secrets.token_urlsafe(24) if has_token else None
    if not address.is_loopback:
        where = f"this machine (http://{authority(machine, port)})" if address.is_unspecified else host
        who = f"everybody who can reach {where}{' and has the token' if token else ''}"
        print(f"warning: {who} can read these runs: {', '.join(run.name for run in runs)}")
    here = {"127.0.0.1": "localhost", "0.0.0.0": "localhost", "::": "::1"}.get(place, host)
    print(f"watch at http://{authority(here, port)}{f'/?token={token}' if token else ''}{ending}", flush=True)
    app = application(runs, hosts, others, token)
    settings = uvicorn.Config(**bounded(app), log_level="error")
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listener])


def _listen(host: str, port: int | None) -> socket.socket:
    if port is None:
        try:
            return _listen(host, USUAL_PORT)
        except UserError:
            return _listen(host, 0)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, place = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost is 127.0.0.1 first
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)
        listener.bind(place)
        listener.listen()  # from here on nobody who comes is turned away
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no name can be
        why = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(f"port = {port}: must be one that is free at {host} ({why})") from error
        raise UserError(f"host = {host!r}: must be a name or an address of this machine ({why})") from error
    return listener


def end_with(parent: int) -> None:
    """End this process when the one that started it has ended, even by a kill; and stand back for it."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(argv: list[str] | None = None) -> None:
    """Serve from the command line."""
    parser = argparse.ArgumentParser(prog=command("dashboard"), allow_abbrev=False, description=__doc__.split("\n")[0])
    parser.add_argument("run_dirs", nargs="+", type=a_path, metavar="RUN_DIR", help="folders of runs")
    parser.add_argument("--port", type=int, help=f"where to listen ({USUAL_PORT}, or any that is free)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; any but loopback lets others read")
    another = "another name by which browsers may call it, as behind a forwarded port or a proxy"
    parser.add_argument("--name", action="append", default=[], metavar="HOST[:PORT]", help=another)
    when = "; ".join(f"{word}: {meaning}" for word, meaning in TOKENS.items())
    parser.add_argument("--token", choices=TOKENS, default="auto", help=f"when the address has a token ({when})")
    parser.add_argument("--end_with", type=int, help=argparse.SUPPRESS)  # the process whose run this page is of
    options = parser.parse_args(argv)
    if options.end_with:
        end_with(options.end_with)
    ending = "" if options.end_with else "   (Ctrl-C ends it)"
    where = (options.host, options.port, options.name)
    run_command(lambda: serve(options.run_dirs, *where, ending=ending, tokens=options.token))
    sys.exit(0)


if __name__ == "__main__":
    main()

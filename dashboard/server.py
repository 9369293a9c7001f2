"""Who may ask for what: a small web application on loopback that answers GET and changes nothing.

Every request and every websocket must name this server as its Host, by a known name or by the address at which it
arrived, and may come from a page of this server only (Origin), so that no other site that a browser has open can read a
run, not even by rebinding its own name to this address. No name of a file comes from outside: a request names a run, a
kind and a generation by number or known word. Where others can reach the server, a request must also show its token.
"""

import asyncio
import hmac
import json
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import distribution
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from agents.types import UserError
from dashboard.reading import Run, Stamp, film, remembered
from dashboard.sockets import MOST_HEADERS

MOST_PAGES = 64
"""Pages that may listen for news at a time."""
MOST_REMEMBERED = 64 << 20
"""Bytes of answers that are remembered."""
NEWS_EVERY_S = 0.5
PAGE = Path(__file__).parent / "page"
PLOTLY = Path(str(distribution("plotly").locate_file("plotly/package_data/plotly.min.js")))
"""The chart library, as the package `plotly` carries it."""
KINDS_OF_FILE = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
"""The page loads nothing from elsewhere and is shown in no frame. Styles are set by the charts, hence unsafe-inline."""


MOST_PATH = 2 << 10
"""Bytes of a path with its query; so no number in it is too long to be read."""


class Guard:
    """Turns away who calls this server by another name, comes from another page, or wants more than to read.

    hosts: names of this server, with their ports. names: those behind which a proxy may be, which may speak https.
    token: what a request must show, in its address (?token=...) or, from then on, in a cookie; None where all may read.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], names: Sequence[str], token: str | None):
        self.app, self.token = app, token
        self.names = frozenset(name.lower() for name in names)
        self.hosts = self.names.union(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is fine; a websocket that is not is closed before it opens."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        refused = self._why_not(scope)
        if not refused:
            return await self.app(scope, receive, _with_headers(send, self._cookie(scope)))
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
        else:  # what else such a client has sent is not read
            answer = PlainTextResponse(refused[1], status_code=refused[0], headers={"connection": "close"})
            await answer(scope, receive, _with_headers(send))

    def _why_not(self, scope: Scope) -> tuple[int, str] | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > MOST_PATH:
            return 414, "that address is too long"
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADERS:
            return 431, "those headers are too long"
        headers: dict[bytes, list[bytes]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key.lower(), []).append(value)
        hosts = self.hosts | {authority(*scope["server"])}  # nobody rebinds an address, only names
        host = headers.get(b"host", [])
        if len(host) != 1 or host[0].decode("latin-1").lower() not in hosts:
            advice = "start the dashboard with --name HOST[:PORT] to call it so"
            return 421, f"this server is not known by that name: {advice}"
        origins = [value.decode("latin-1").lower() for value in headers.get(b"origin", [])]
        if not {f"http://{name}" for name in hosts}.union(f"https://{name}" for name in self.names).issuperset(origins):
            return 403, "pages of other origins may not read this"
        if scope["type"] == "websocket" and not origins:
            return 403, "a websocket must say where it comes from"
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            return 405, "this server is for reading only"
        if b"transfer-encoding" in headers or headers.get(b"content-length", [b"0"]) != [b"0"]:
            return 413, "a request to read has no body"
        if self.token and not self._shows_token(scope):
            return 403, "this page needs its whole address, with ?token=, as printed where it was started"
        return None

    def _shows_token(self, scope: Scope) -> bool:
        asked = HTTPConnection(scope)
        shown = (asked.query_params.get("token", ""), asked.cookies.get(_cookie_name(scope), ""))
        return any([hmac.compare_digest(one.encode(), str(self.token).encode()) for one in shown])

    def _cookie(self, scope: Scope) -> dict[str, str]:
        """A header that has the browser remember the token which the address holds, until it is closed."""
        if not (self.token and b"token=" in scope["query_string"]):
            return {}
        return {"set-cookie": f"{_cookie_name(scope)}={self.token}; HttpOnly; SameSite=Strict; Path=/"}


def _cookie_name(scope: Scope) -> str:
    """With the port, since cookies are for all ports of a host."""
    return f"terrarium-{scope['server'][1]}"


def authority(host: str, port: int) -> str:
    """A name or an address with its port, as a browser says it: [::1]:8600; without the port that goes without saying.

    An IPv4 address that reached a socket for IPv6 (::ffff:10.0.0.1) is what the browser has called it.
    """
    host = host.removeprefix("::ffff:") if "." in host else host
    return (f"[{host}]" if ":" in host else host) + ("" if port == 80 else f":{port}")


def authorities(name: str, port: int) -> list[str]:
    """What a browser may say for a name that is given: HOST:PORT, or HOST, with this port or with none (80 and 443).

    UserError for what is neither, such as a whole address.
    """
    with suppress(ValueError):
        name = authority(str(ip_address(name)), 80)  # brackets around ::1, whose end is no port
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]\s:/?#@]+)(?::([0-9]{1,5}))?", name)
    if not found or int(found[2] or 0) > 65535:
        raise UserError(f"name = {name!r}: must be HOST or HOST:PORT, as a browser shows it, such as localhost:9000")
    host, other = found.groups()
    return [name] if other not in (None, "80", "443") else [host, f"{host}:{other or port}"]


def _with_headers(send: Send, more: Mapping[str, str] = MappingProxyType({})) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            known = {key.lower() for key, _ in message["headers"]}
            extra = [(k.encode(), v.encode()) for k, v in (HEADERS | dict(more)).items() if k.encode() not in known]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return with_headers


class News:
    """Sends all pages which parts of which runs have changed. Looks at the files once for all of them."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = runs
        self.pages: set[WebSocket] = set()
        self._stamps = [run.stamps() for run in runs]

    async def watch(self) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(NEWS_EVERY_S)
            changed = await run_in_threadpool(self._changed)
            if changed:
                listening = [page for page in self.pages if page.application_state is WebSocketState.CONNECTED]
                await asyncio.gather(*(self._send(page, changed) for page in listening))

    async def _send(self, page: WebSocket, changed: dict[int, list[str]]) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            return await page.send_json({"changed": changed})
        self.pages.discard(page)

    def _changed(self) -> dict[int, list[str]]:
        now = [run.stamps() for run in self.runs]
        pairs = enumerate(zip(self._stamps, now, strict=True))
        changed = {i: [part for part in new if new[part] != old.get(part)] for i, (old, new) in pairs}
        self._stamps = now
        return {i: parts for i, parts in changed.items() if parts}

    async def page(self, socket: WebSocket) -> None:
        """One page that listens; it has nothing to say, so the first word closes it."""
        if len(self.pages) >= MOST_PAGES:
            return await socket.close(1013, "too many pages are open")
        self.pages.add(socket)
        try:
            await socket.accept()
            if (await socket.receive())["type"] == "websocket.receive":
                await socket.close(1008, "a page has nothing to say here")
        except (RuntimeError, WebSocketDisconnect):  # it has gone meanwhile
            pass
        finally:
            self.pages.discard(socket)


def application(
    runs: Sequence[Run], hosts: Sequence[str], names: Sequence[str] = (), token: str | None = None
) -> Starlette:
    """The web application for some runs. hosts: names and ports by which it may be called, as 127.0.0.1:8600.

    names: others, which may also be those of a proxy that speaks https. token: what a request must show, if anything.
    """
    news = News(runs)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(news.watch())
        yield
        watching.cancel()

    routes = [*_page_routes(), *_run_routes(runs), WebSocketRoute("/news", news.page)]
    guard = Middleware(Guard, hosts=hosts, names=names, token=token)
    app = Starlette(routes=routes, middleware=[guard], lifespan=lifespan)
    app.router.redirect_slashes = False  # /runs/ is nothing, and /runs is asked for by its name
    return app


def _page_routes() -> list[Route]:
    """The page's own files and the chart library, each under a name known beforehand."""
    files = {f"/{file.name}": file for file in sorted(PAGE.iterdir()) if file.suffix in KINDS_OF_FILE}
    files |= {"/": PAGE / "index.html", "/plotly.js": PLOTLY}

    def route(path: str, file: Path) -> Route:
        content, kind = file.read_bytes(), KINDS_OF_FILE[file.suffix]

        async def give(request: Request) -> Response:
            return Response(content, media_type=kind)

        return Route(path, give)

    return [route(path, file) for path, file in files.items()]


def encoded(answer: Any) -> bytes:
    """An answer as JSON in ASCII, which holds any text there is; ValueError for a number that is not finite."""
    return json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()


class Answers:
    """Answers as they are sent. As long as a part of a run does not change, many pages that ask cost what one does."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Stamp | None, bytes]] = OrderedDict()
        self._is_at_work = Lock()  # one at a time: the run has better use for the processor

    def give(self, path: str, run: Run, part: str, answer: Callable[[], Any]) -> bytes:
        """What `answer` says of a part of a run, in JSON; from memory if it was asked since that part changed."""
        with self._is_at_work:
            stamp = run.stamps().get(part)
            if path not in self._known or self._known[path][0] != stamp:
                self._known[path] = stamp, encoded(answer())
            self._known.move_to_end(path)
            body = self._known[path][1]
            while sum(len(known) for _, known in self._known.values()) > MOST_REMEMBERED:
                self._known.popitem(last=False)
            return body


async def _result(answer: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return await run_in_threadpool(answer, *arguments)
    except FileNotFoundError as error:
        raise HTTPException(404, str(error)) from error
    except ValueError as error:  # which says in a sentence what is damaged
        raise HTTPException(422, str(error)) from error


def _run_routes(runs: Sequence[Run]) -> list[Route]:
    answers = Answers()

    def get(part: str, path: str, answer: Callable[[Run, Request], Any]) -> Route:
        async def give(request: Request) -> Response:
            number = request.path_params["run"]
            if number >= len(runs):
                raise HTTPException(404, "there is no such run")
            run = runs[number]
            body = await _result(answers.give, request.url.path, run, part, partial(answer, run, request))
            return Response(body, media_type="application/json")

        return Route(f"/runs/{{run:int}}/{part}{path}", give)

    def recording(run: Run, request: Request) -> Any:
        return run.recording(request.path_params["kind"], request.path_params["generation"])

    def memory(run: Run, request: Request) -> dict[str, Any]:
        if run.config().env.codec:
            return {"maps": []}  # a codec of the user's own may remember anything
        return remembered(recording(run, request), request.path_params["agent"])

    async def overview(request: Request) -> Response:
        body = await _result(lambda: encoded([run.overview() for run in runs]))
        return Response(body, media_type="application/json")

    recorded = "/{kind:str}/{generation:int}"
    return [
        Route("/runs", overview),
        get("metrics", "", lambda run, _: run.lines("metrics")),
        get("adapters", "", lambda run, _: run.lines("adapters")),
        get("lineage", "", lambda run, _: run.lineage()),
        get("recordings", "", lambda run, _: run.recordings()),
        get("recordings", recorded, lambda run, request: film(recording(run, request))),
        get("recordings", recorded + "/memory/{agent:int}", memory),
    ]

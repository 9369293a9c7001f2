"""Clients that hold a connection and do nothing with it keep nobody else out, and are dropped. With real sockets."""

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from dashboard import sockets
from dashboard.reading import Run
from dashboard.server import PLOTLY, application

LONG = 60.0
"""Seconds after which a test has failed; what it waits for comes much sooner."""


def place_of(address: str) -> tuple[str, int]:
    found = urlsplit(address)
    return found.hostname or "", found.port or 0


def half_sent(address: str, path: str = "/runs") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\n".encode()


def whole(address: str, path: str = "/runs") -> bytes:
    return half_sent(address, path) + b"\r\n"


def knock(address: str, said: bytes, receive: int | None = None) -> socket.socket:
    """A connection that has said something. receive: bytes that the system takes for it before it reads."""
    caller = socket.socket()
    if receive:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    caller.settimeout(LONG)
    caller.connect(place_of(address))
    with suppress(ConnectionError):  # it may already have been turned away
        caller.sendall(said)
    return caller


def heard(caller: socket.socket, most: int = 1 << 30) -> bytes:
    """What comes until the connection is closed, or until so much has come."""
    got = b""
    with suppress(ConnectionError):
        while len(got) < most and (more := caller.recv(1 << 16)):
            got += more
    return got


def is_open(caller: socket.socket) -> bool:
    caller.setblocking(False)
    try:
        return bool(caller.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def gets_an_answer(address: str) -> bool:
    with closing(knock(address, whole(address))) as caller:
        return heard(caller, most=15).startswith(b"HTTP/1.1 200 OK")


def is_dropped_while_it_talks(caller: socket.socket) -> bool:
    end = time.monotonic() + LONG
    with suppress(ConnectionError):
        while time.monotonic() < end:
            caller.sendall(b"x")
            time.sleep(0.05)
    return time.monotonic() < end


@contextmanager
def impatient(app: Callable[[str], Any]) -> Iterator[str]:
    """The address at which this process serves an application, with the limits that a test has set.

    app: from the address without its scheme to the application.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
    place = f"127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(**sockets.bounded(app(place)), log_level="error"))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://{place}"
    finally:
        server.should_exit = True
        thread.join(LONG)


@pytest.fixture
def quick(two_runs, monkeypatch) -> Iterator[str]:
    """A page that is impatient."""
    monkeypatch.setattr(sockets, "ASK_S", 0.4)
    monkeypatch.setattr(sockets, "READ_S", 0.4)
    with impatient(lambda place: application([Run(two_runs[0])], [place])) as address:
        yield address


@pytest.mark.parametrize("said", ["half", "nothing", "whole, and again and again"])
def test_three_hundred_connections_do_not_keep_a_good_client_out(address, said):
    text = {"half": half_sent(address), "nothing": b""}.get(said, 20 * whole(address, "/plotly.js"))
    with ExitStack() as crowd:
        callers = [crowd.enter_context(closing(knock(address, text, receive=4096))) for _ in range(300)]
        assert gets_an_answer(address)
        if said != "whole, and again and again":  # there, what was sent before the end may still be on its way
            assert sum(map(is_open, callers)) <= sockets.MOST_OPEN
        assert gets_an_answer(address)
    assert gets_an_answer(address)


def test_a_request_that_comes_a_letter_at_a_time_is_dropped(quick):
    with closing(knock(quick, half_sent(quick))) as caller:
        assert is_dropped_while_it_talks(caller)
    assert gets_an_answer(quick)


def test_a_body_that_comes_a_letter_at_a_time_is_refused_and_dropped(quick):
    with closing(knock(quick, half_sent(quick) + b"Content-Length: 1000\r\n\r\n")) as caller:
        assert heard(caller).startswith(b"HTTP/1.1 413 ")
        assert is_dropped_while_it_talks(caller)


def test_who_asks_nothing_more_is_dropped(quick):
    with closing(knock(quick, whole(quick))) as caller:
        assert heard(caller).startswith(b"HTTP/1.1 200 OK")  # and then the end, though it did not ask for that


def test_who_does_not_read_the_answer_is_dropped_and_who_reads_has_it_whole(quick):
    with closing(knock(quick, whole(quick, "/plotly.js"), receive=4096)) as lazy:
        with closing(knock(quick, whole(quick, "/plotly.js"))) as keen:
            head, _, body = heard(keen).partition(b"\r\n\r\n")
        assert body == PLOTLY.read_bytes()
        assert f"content-length: {len(body)}".encode() in head
        end = time.monotonic() + LONG
        while sockets.Visit.open and time.monotonic() < end:
            time.sleep(0.05)
        assert not sockets.Visit.open
        assert len(heard(lazy)) < len(body)


def test_who_reads_slowly_has_the_rest_of_an_answer_after_all_of_it_was_sent(monkeypatch):
    """What was sent last waits here as long as the client may read, not as long as it may ask."""
    monkeypatch.setattr(sockets, "ASK_S", 0.2)
    is_sent = Event()

    async def app(scope, receive, send) -> None:
        """Sends until something waits in this process, and then the end."""
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200})
        while not scope["state"]["visit"]._transport.get_write_buffer_size():
            await send({"type": "http.response.body", "body": 1024 * b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"the end"})
        is_sent.set()

    with (
        impatient(lambda _: app) as address,
        closing(knock(address, whole(address), receive=4096)) as slow,
    ):
        assert is_sent.wait(LONG)
        time.sleep(4 * sockets.ASK_S)
        assert heard(slow).endswith(b"the end\r\n0\r\n\r\n")


class Waiting:
    """A transport that holds some bytes back."""

    waiting, is_aborted = 1, False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.is_aborted = True


@pytest.mark.parametrize(("waiting", "is_dropped"), [(1, False), (0, True)])
def test_who_has_made_room_after_the_answer_has_time_for_what_is_left_of_it(monkeypatch, waiting, is_dropped):
    monkeypatch.setattr(sockets, "ASK_S", 0.0)

    async def make_room() -> bool:
        transport: Any = Waiting()
        visit = sockets.Visit()
        visit.begin(transport)
        visit.is_asked()
        visit.is_full(True)
        visit.is_answered()
        transport.waiting = waiting
        visit.is_full(False)
        await asyncio.sleep(0.05)
        visit.end()
        return transport.is_aborted

    assert asyncio.run(make_room()) == is_dropped


def test_who_may_still_ask_is_not_sent_away_by_uvicorn():
    assert uvicorn.Config(**sockets.bounded(Any)).timeout_keep_alive == sockets.ASK_S


async def said_to(address: str, say: Callable) -> int:
    """How a websocket is closed to which something is said."""
    async with connect(address.replace("http", "ws") + "/news", origin=address) as news:  # type: ignore[arg-type]
        with suppress(ConnectionClosed):
            await say(news)
            await asyncio.wait_for(news.recv(), LONG)
        return news.close_code or 0


async def ping_without_end(news) -> None:
    for number in itertools.count():
        await news.ping(f"{number:100d}")


def test_a_websocket_is_closed_at_its_first_word(quick):
    assert asyncio.run(said_to(quick, lambda news: news.send("hello"))) == 1008
    assert asyncio.run(said_to(quick, lambda news: news.send(b"x" * 2000))) == 1009


def test_a_websocket_that_pings_without_end_is_dropped(quick):
    assert asyncio.run(said_to(quick, ping_without_end)) == 1006
    assert gets_an_answer(quick)

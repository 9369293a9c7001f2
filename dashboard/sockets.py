"""How many connections are open, and how long each may keep the server waiting.

uvicorn counts a connection only when its request is whole, and gives a client all the time it wants to send one and to
read the answer. Here the connections are counted when they come. Whoever has the turn to send or to read has it for a
limited time, and is the first to go when a place is needed; so clients that do nothing can never keep others out.

Uses uvicorn's documented settings `http` and `ws`, which take protocol classes: these are its own, with the callbacks
that asyncio promises. An ASGI application is told in `scope["state"]` which connection a request came by.
"""

import asyncio
from typing import Any, ClassVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MOST_OPEN = 128
"""Connections that are open at a time."""
ASK_S = 10.0
"""Seconds in which a client must have sent a request, from when it came or had the last answer."""
READ_S = 30.0
"""Seconds in which a client must make room for more of an answer."""
PIECE = 64 << 10
"""Bytes of an answer that are handed to a connection at a time; no more than two pieces of it wait there."""
MOST_SAID = 1 << 20
"""Bytes that a websocket may say in its life. A page says nothing but that it is still there, every 20 seconds."""
MOST_HEADERS = 16 << 10
"""Bytes of a request's line and headers."""


class Visit:
    """One connection: whose turn it is, and until when."""

    open: ClassVar["set[Visit]"] = set()
    waited_for: ClassVar["dict[Visit, None]"] = {}  # those that have the turn, longest first

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._requests = 0  # that are being answered
        self._is_full = False  # what was sent is not read

    def begin(self, transport: asyncio.Transport) -> None:
        """Take a place; where there is none, that of the client that was waited for longest, or leave."""
        self._transport = transport
        if len(self.open) >= MOST_OPEN:
            if not self.waited_for:
                return transport.abort()
            next(iter(self.waited_for)).leave()
        self.open.add(self)
        self._wait(ASK_S)

    def end(self) -> None:
        """Give the place back."""
        self._stop_waiting()
        self.open.discard(self)

    def leave(self) -> None:
        """Close the connection at once, whatever is still to be sent."""
        self.end()
        if self._transport:
            self._transport.abort()

    def is_asked(self) -> None:
        """A request is whole: it is the server's turn."""
        self._requests += 1
        if not self._is_full:
            self._stop_waiting()

    def is_answered(self) -> None:
        """The client's turn."""
        self._requests -= 1
        if not self._is_full:
            self._wait_for_client()

    def is_full(self, is_full: bool) -> None:
        """Whether more was sent than the client has read."""
        self._is_full = is_full
        if is_full:
            self._wait(READ_S)
        elif self._requests:
            self._stop_waiting()
        else:
            self._wait_for_client()

    def _wait_for_client(self) -> None:
        """To read the rest of an answer, which may still wait here though all of it was sent; else to ask."""
        has_rest = self._transport and self._transport.get_write_buffer_size()
        self._wait(READ_S if has_rest else ASK_S)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        if self in self.open:
            self.waited_for[self] = None
            self._timer = asyncio.get_running_loop().call_later(seconds, self.leave)

    def _stop_waiting(self) -> None:
        self.waited_for.pop(self, None)
        if self._timer:
            self._timer.cancel()


class Http(H11Protocol):
    """A connection that asks; it may become a websocket."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None):
        self.visit = Visit()
        super().__init__(config, server_state, {**app_state, "visit": self.visit}, _loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """It has come."""
        super().connection_made(transport)
        self.visit.begin(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self.visit.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """What was sent is not read."""
        super().pause_writing()
        self.visit.is_full(True)

    def resume_writing(self) -> None:
        """It is."""
        super().resume_writing()
        self.visit.is_full(False)


class WebSocket(WebSocketsSansIOProtocol):
    """A connection of a page that waits for news; its handshake is already read."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None):
        super().__init__(config, server_state, app_state, _loop)
        self.visit: Visit = app_state["visit"]
        self._said = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self.visit.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """It says something, if only that it is still there."""
        self._said += len(data)
        if self._said > MOST_SAID:
            return self.visit.leave()
        super().data_received(data)

    def pause_writing(self) -> None:
        """It reads no news: they are so short that nobody is behind by so much who is still there."""
        super().pause_writing()
        self.visit.leave()


class InTurn:
    """An application whose answers are sent in pieces, and which tells each connection when it has the turn."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within the server's turn."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        visit: Visit = scope["state"]["visit"]
        visit.is_asked()
        try:
            await self.app(scope, receive, _in_pieces(send))
        finally:
            visit.is_answered()


def _in_pieces(send: Send) -> Send:
    """Sends a body piece by piece: uvicorn waits between them until the client has read what it has got."""

    async def in_pieces(message: Message) -> None:
        if message["type"] != "http.response.body":
            return await send(message)
        body, goes_on = message.get("body", b""), message.get("more_body", False)
        for start in range(0, max(1, len(body)), PIECE):
            end = start + PIECE
            await send({**message, "body": body[start:end], "more_body": goes_on or end < len(body)})

    return in_pieces


def bounded(app: ASGIApp) -> dict[str, Any]:
    """Settings of uvicorn, with which it serves this application to a bounded number of patient connections."""
    return {
        "app": InTurn(app),
        "http": Http,
        "ws": WebSocket,
        "ws_max_size": 1024,
        "ws_per_message_deflate": False,
        "h11_max_incomplete_event_size": MOST_HEADERS,
        "backlog": MOST_OPEN,
        "timeout_keep_alive": ASK_S,  # else uvicorn closes sooner
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": 2,
    }

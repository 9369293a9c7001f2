"""What somebody may send who means harm, byte for byte, and that nothing comes of it. The server is a real one.

None of it has the server say anything on its standard error, where it could fill the terminal of a run, and after all
of it the server answers as before.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
DROPPED = 0
"""In place of a status: who goes on talking when refused may lose the answer with the connection."""
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE = f"Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}"
CHUNKED = "Transfer-Encoding: chunked\r\n"
HOST = "Host: {place}\r\n"
PAGE = "Origin: http://{place}\r\n"


def get(path: str, more: str = "", method: str = "GET") -> str:
    return f"{method} {path} HTTP/1.1\r\n{HOST}{more}\r\n"


ATTACKS: dict[str, tuple[str, set[int]]] = {
    "a path that climbs": (get("/../../etc/passwd"), {404}),
    "one that climbs in code": (get("/%2e%2e/%2e%2e/etc/passwd"), {404}),
    "one that climbs in double code": (get("/%252e%252e%252fetc%252fpasswd"), {404}),
    "one that climbs backwards": (get("/..\\..\\etc\\passwd"), {404}),
    "one that climbs in overlong code": (get("/%c0%ae%c0%ae/etc/passwd"), {404}),
    "one that climbs in a kind": (get("/runs/0/recordings/..%2f..%2f..%2fetc/1"), {404}),
    "another part of a run": (get("/runs/0/config.yaml"), {404}),
    "a null in a path": (get("/app.js%00.html"), {404}),
    "a null itself": (get("/app.js\0"), {400}),
    "letters that are none": (get("/\x80\xff"), {400}),
    "half of a letter": (get("/%ed%a0%80"), {404}),
    "a line in a path": (get("/x%0d%0aSet-Cookie:%20a=b"), {404}),
    "a slash too many, to be led elsewhere": (get("//evil.example/runs/"), {404}),
    "a run that there is not": (get("/runs/99999999999999999999/metrics"), {404}),
    "a number that is none": (get("/runs/0x0/metrics"), {404}),
    "a number below nought": (get("/runs/-1/metrics"), {404}),
    "a number in other digits": (get("/runs/%d9%a0/metrics"), {404}),
    "a number of a thousand digits": (get("/runs/0/recordings/rollout/" + 1000 * "9"), {404}),
    "a number of five thousand digits": (get("/runs/" + 5000 * "9" + "/metrics"), {414}),
    "an agent that there is not": (get("/runs/0/recordings/rollout/1/memory/99999999"), {422}),
    "a long path": (get("/" + 4000 * "a"), {414}),
    "a long question": (get("/?" + 4000 * "a"), {414}),
    "a line without an end": ("GET /" + 300_000 * "a", {400, DROPPED}),
    "long headers": (get("/runs", "X: " + 20_000 * "a" + "\r\n"), {400, 431, DROPPED}),
    "many headers": (get("/runs", 2000 * "X: aaaaaaaa\r\n"), {400, 431, DROPPED}),
    "another host": ("GET /runs HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "another name for this address": ("GET /runs HTTP/1.1\r\nHost: rebound.example:{port}\r\n\r\n", {421}),
    "no host": ("GET /runs HTTP/1.1\r\n\r\n", {400}),
    "no host, as once": ("GET /runs HTTP/1.0\r\n\r\n", {421}),
    "two hosts": ("GET /runs HTTP/1.1\r\n" + HOST + "Host: evil.example\r\n\r\n", {400, 421}),
    "a host in the address": ("GET http://evil.example/runs HTTP/1.1\r\n" + HOST + "\r\n", {404}),
    "a host that others forward": (get("/runs", "X-Forwarded-Host: evil.example\r\nForwarded: host=evil\r\n"), {200}),
    "another origin": (get("/runs", "Origin: http://evil.example\r\n"), {403}),
    "an origin that is null": (get("/runs", "Origin: null\r\n"), {403}),
    "two origins": (get("/runs", PAGE + "Origin: http://evil.example\r\n"), {403}),
    "an origin that begins alike": (get("/runs", "Origin: http://{place}.evil.example\r\n"), {403}),
    "a method that writes": (get("/runs", "Content-Length: 0\r\n", "POST"), {405}),
    "a method that there is not": (get("/runs", method="PWN"), {405}),
    "a method that asks for another way": (get("/runs", method="CONNECT"), {405}),
    "a method that tells all": (get("/runs", method="TRACE"), {405}),
    "a method in place of another": (get("/runs", "X-HTTP-Method-Override: DELETE\r\n"), {200}),
    "a body": (get("/runs", "Content-Length: 5\r\n") + "hello", {413}),
    "a body without an end": (get("/runs", CHUNKED) + "ffffffff\r\n", {413}),
    "two lengths": (get("/runs", "Content-Length: 0\r\nContent-Length: 40\r\n"), {400}),
    "a request within a request": (get("/runs", "Content-Length: 6\r\n" + CHUNKED) + "0\r\n\r\nG", {413}),
    "a length below nought": (get("/runs", "Content-Length: -1\r\n"), {400}),
    "a header that goes on": (get("/runs", "X: a\r\n b: c\r\n"), {200}),
    "a header with a null": (get("/runs", "X: a\0b\r\n"), {400}),
    "a header without a name": (get("/runs", ": a\r\n"), {400}),
    "another protocol": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 421}),
    "a call for another protocol": (get("/runs", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"), {200}),
    "no protocol": ("\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", {400}),
    "a websocket from elsewhere": (get("/news", UPGRADE + "Origin: http://evil.example\r\n"), {403}),
    "a websocket from nowhere": (get("/news", UPGRADE), {403}),
    "a websocket of another version": (get("/news", UPGRADE.replace("13", "7") + PAGE), {400, 426}),
    "a websocket without a key": (get("/news", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + PAGE), {400, 426}),
    "a websocket to another place": (get("/runs", UPGRADE + PAGE), {403, 404}),
    "a websocket that posts": (get("/news", UPGRADE + PAGE, "POST"), {400, 403, 405}),
    "a cookie that is not ours": (get("/runs", "Cookie: =;;=; terrarium-{port}=\xff; a\r\n"), {200}),
    "a range of what is there": (get("/plotly.js", "Range: bytes=0-1,2-3,4-5\r\n"), {200}),
}


@pytest.fixture(scope="module")
def server(two_runs) -> Iterator[tuple[str, subprocess.Popen]]:
    """An address and its server; at the end it has answered as before, and said nothing."""
    command = [sys.executable, "-m", "dashboard", *map(str, two_runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout
        assert server.stderr
        try:
            address = server.stdout.readline().split()[2]
            yield address, server
            status, body = said(address, get("/runs"))
            assert status == 200
            assert [run["damage"] for run in json.loads(body)] == [[], []]
        finally:
            server.terminate()
        assert server.stderr.read() == ""


def said(address: str, attack: str) -> tuple[int, bytes]:
    """Status and body of the first answer to what is sent."""
    place, port = urlsplit(address).netloc, urlsplit(address).port or 0
    text = attack.replace("{place}", place).replace("{port}", str(port)).encode("latin-1")
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as caller:
        with suppress(ConnectionError):  # it may be closed before all is said
            caller.sendall(text)
        answer = HTTPResponse(caller)
        try:
            answer.begin()
            body = answer.read()
        except ConnectionResetError:
            return DROPPED, b""
        assert not {"set-cookie", "location"} & {name.lower() for name, _ in answer.getheaders()}
        return answer.status, body


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_comes_of_it(server, attack):
    text, expected = ATTACKS[attack]
    status, body = said(server[0], text)
    assert status in expected
    assert b"root:x" not in body
    assert b"Traceback" not in body
    assert str(ROOT).encode() not in body
    assert (b'"seed"' in body) <= (status == 200)


def test_there_are_more_than_thirty():
    assert len(ATTACKS) > 30

"""Who may ask for what. The server is a real one, in a process of its own."""

import asyncio
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from agents.types import UserError
from dashboard.server import authorities, authority

ROOT = Path(__file__).parents[2]


def ask(address: str, path: str = "/runs", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; a header whose value is empty is left out."""
    place = urlsplit(address).netloc
    connection = http.client.HTTPConnection(place, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for name, value in ({"Host": place} | headers).items():
        if value:
            connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_it_tells_of_all_runs(address):
    status, headers, body = ask(address)
    assert status == 200
    assert [run["name"] for run in json.loads(body)] == ["first", "<img src=x onerror=alert(1)>"]
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize(
    ("path", "has"),
    [
        ("/", b"Terrarium"),
        ("/app.js", b"begin();"),
        ("/style.css", b"--ground"),
        ("/plotly.js", b"Plotly"),
        ("/runs/0/metrics", b"fitness_mean"),
        ("/runs/1/adapters", b"norms"),
        ("/runs/0/lineage", b"champion"),
        ("/runs/0/recordings", b"held_out"),
        ("/runs/0/recordings/rollout/1", b"probability"),
        ("/runs/0/recordings/rollout/1/memory/3", b"maps"),
    ],
)
def test_it_gives_what_there_is(address, path, has):
    status, _, body = ask(address, path)
    assert status == 200
    assert has in body


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/runs/2/metrics", 404),
        ("/runs/-1/metrics", 404),
        ("/runs/0/config", 404),
        ("/runs/0/recordings/rollout/9", 404),
        ("/runs/0/recordings/checkpoint/1", 404),
        ("/runs/0/recordings/rollout/1/memory/9", 422),
        ("/../pyproject.toml", 404),
        ("/%2e%2e/pyproject.toml", 404),
        ("/..%2f..%2fetc/passwd", 404),
        ("/runs/0/recordings/..%2f..%2fcheckpoints/1", 404),
        ("/runs/0/recordings/%2e%2e%2frollout/1", 404),
        ("//etc/passwd", 404),
        ("/app.js%00.html", 404),
    ],
)
def test_there_is_nothing_else(address, path, expected):
    assert ask(address, path)[0] == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:{port}"}, 421),
        ({"Host": "localhost"}, 421),
        ({"Host": ""}, 400),  # HTTP/1.1 demands one
        ({"Host": "127.0.0.1:{port}"}, 200),
        ({"Host": "LOCALHOST:{port}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://localhost:{port}"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "http://localhost:{port}"}, 200),
    ],
)
def test_other_names_and_other_pages_are_turned_away(address, headers, expected):
    port = urlsplit(address).port
    status, answered, body = ask(address, **{name: value.format(port=port) for name, value in headers.items()})
    assert status == expected
    assert (b"seed" in body) == (expected == 200)
    assert "access-control-allow-origin" not in answered


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(address, method):
    assert ask(address, method=method)[0] == 405


def refusal(address: str, origin: str | None, host: str | None = None, cookie: str = "") -> int:
    async def attempt() -> int:
        news = address.replace("http", "ws") + "/news"
        headers = ({"Host": host} if host else {}) | ({"Cookie": cookie} if cookie else {})
        try:
            async with connect(news, origin=origin, additional_headers=headers):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    return asyncio.run(attempt())


def test_a_websocket_is_for_the_page_itself(address):
    assert refusal(address, address) == 101
    for origin in ("http://evil.example", "null", None):
        assert refusal(address, origin) == 403


def test_two_hundred_sockets_are_not_too_much(address):
    async def crowd() -> tuple[int, int]:
        news = address.replace("http", "ws") + "/news"

        async def one():
            try:
                return await connect(news, origin=address, open_timeout=30)
            except (InvalidStatus, OSError, TimeoutError):
                return None

        sockets = [await one() for _ in range(200)]
        opened = [s for s in sockets if s]
        others = await asyncio.to_thread(ask, address)
        await asyncio.gather(*(s.close() for s in opened))
        return len(opened), others[0]

    opened, status = asyncio.run(crowd())
    assert 20 <= opened <= 64
    assert status == 200
    assert ask(address)[0] == 200


def test_news_of_a_run_reach_the_page(two_runs, address):
    async def wait() -> dict:
        async with connect(address.replace("http", "ws") + "/news", origin=address) as news:
            (two_runs[0] / "metrics.jsonl").touch()
            return json.loads(await asyncio.wait_for(news.recv(), timeout=20))

    assert asyncio.run(wait()) == {"changed": {"0": ["metrics"]}}


def start(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dashboard", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def test_a_mistake_is_one_sentence(two_runs, tmp_path):
    done = start(tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no such folder; must be the folder of a run" in done.stderr
    assert "port = 70000: must be between 0 (any that is free) and 65535" in start(two_runs[0], "--port", 70000).stderr
    assert "name = 'http://x': must be HOST or HOST:PORT" in start(two_runs[0], "--name", "http://x").stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port = {port}: must be one that is free at 127.0.0.1" in start(two_runs[0], "--port", port).stderr


@pytest.mark.parametrize("host", ["no-such.invalid", "203.0.113.7", "", "a..b"])
def test_a_host_that_is_not_this_machine_is_one_sentence(two_runs, host):
    done = start(two_runs[0], "--host", host)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"host = {host!r}: must be a name or an address of this machine (" in done.stderr


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "localhost"), ("::", "[::1]")])
def test_letting_others_read_is_warned_of(two_runs, host, shown):
    if host == "::" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    machine = socket.gethostname().lower()
    command = [sys.executable, "-m", "dashboard", str(two_runs[0]), "--host", host, "--port", "0", "--name", "My.Name"]
    with subprocess.Popen([*command, "--token", "none"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout
        try:
            warning, place = server.stdout.readline(), server.stdout.readline().split()[2]
            port = urlsplit(place).port
            assert place == f"http://{shown}:{port}"
            assert re.search(r"everybody who can reach this machine \([^)]*\) can read these runs: first", warning)
            assert warning.endswith("can read these runs: first\n")
            assert ask(place)[0] == 200
            has_many = host == "0.0.0.0" and sys.platform == "linux"  # there all of 127.0.0.0/8 is this machine
            loopback = f"http://127.0.0.2:{port}" if has_many else place
            for name in (urlsplit(loopback).netloc, f"{machine}:{port}", f"my.name:{port}"):
                assert ask(loopback, Host=name, Origin=f"http://{name}")[0] == 200, name
            assert ask(loopback, Host=f"203.0.113.9:{port}")[0] == 421, "an address at which this did not arrive"
            assert ask(loopback, Host="evil.example")[0] == 421
            assert ask(loopback, Host=f"evil.example:{port}")[0] == 421
            assert ask(loopback, Origin=f"http://evil.example:{port}")[0] == 403
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def beyond(two_runs) -> Iterator[tuple[str, str]]:
    """The address, without and with its token, of a page that others could reach."""
    command = [sys.executable, "-m", "dashboard", str(two_runs[0]), "--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout
        try:
            assert "everybody who can reach this machine" in (warning := server.stdout.readline())
            assert "and has the token can read" in warning
            whole = server.stdout.readline().split()[2]
            yield whole.partition("/?")[0], whole
        finally:
            server.terminate()


def test_beyond_loopback_the_address_has_a_token_that_every_request_must_show(beyond):
    address, whole = beyond
    token = whole.partition("?token=")[2]
    assert len(token) >= 32
    for path in ("/", "/runs", "/app.js", "/plotly.js", "/runs/0/metrics", "/nowhere"):
        for shown in ("", "?token=", f"?token={token[:-1]}", f"?token={token}x", "?token=%C3%A9", f"?tokens={token}"):
            status, headers, body = ask(address, path + shown)
            assert status == 403
            assert "set-cookie" not in headers
            assert token.encode() not in body
    assert ask(address, "/runs", "HEAD")[0] == 403
    assert ask(address, f"/?token={token}", Host="evil.example")[0] == 421
    assert ask(address, f"/?token={token}", Origin="http://evil.example")[0] == 403
    assert ask(address, f"/?token={token}", "POST")[0] == 405


def test_the_token_is_shown_once_and_then_in_a_cookie(beyond):
    address, whole = beyond
    token, port = whole.partition("?token=")[2], urlsplit(address).port
    status, headers, body = ask(address, whole.removeprefix(address))
    assert status == 200
    assert b"Terrarium" in body
    assert headers["set-cookie"] == f"terrarium-{port}={token}; HttpOnly; SameSite=Strict; Path=/"
    cookie = headers["set-cookie"].partition(";")[0]
    for path in ("/app.js", "/runs", "/runs/0/metrics"):
        status, headers, _ = ask(address, path, Cookie=f"other=1; {cookie}")
        assert status == 200
        assert "set-cookie" not in headers
    for wrong in (f"terrarium-{port}=", cookie + "x", cookie.replace(f"{port}", "1"), f"terrarium-{port}=é"):
        assert ask(address, "/runs", Cookie=wrong)[0] == 403


def test_a_websocket_must_show_the_token_too(beyond):
    address, whole = beyond
    token, port = whole.partition("?token=")[2], urlsplit(address).port
    assert refusal(address, address) == 403
    assert refusal(address, address, cookie=f"terrarium-{port}=wrong") == 403
    assert refusal(address, address, cookie=f"terrarium-{port}={token}") == 101
    assert refusal(address, "http://evil.example", cookie=f"terrarium-{port}={token}") == 403


def test_on_loopback_a_token_is_asked_for_where_it_is_wanted(two_runs, serving):
    with serving(two_runs[0], "--token", "always") as whole:
        address, _, token = whole.partition("/?token=")
        assert ask(address)[0] == 403
        assert ask(address, f"/runs?token={token}")[0] == 200
    with serving(two_runs[0]) as address:
        assert "token" not in address
        assert ask(address)[0] == 200


def test_one_bad_run_does_not_take_the_page_from_others(two_runs, serving, tmp_path):
    bad = shutil.copytree(two_runs[0], tmp_path / "bad")
    (bad / "config.yaml").write_text("seed: [")
    (bad / "metrics.jsonl").write_text("7\n{}\n")
    (bad / "recordings" / "rollout_0001.safetensors").write_text("hello")
    with serving(two_runs[0], bad) as address:
        good, damaged = json.loads(ask(address)[2])
        assert (good["done"], good["damage"]) == (3, [])
        assert damaged["damage"][0].startswith("config.yaml: damaged")
        (other,) = damaged["damage"][1:]
        assert other.startswith("metrics.jsonl, line 1: damaged")
        status, _, body = ask(address, "/runs/1/recordings/rollout/1")
        assert (status, body.partition(b":")[0]) == (422, b"recordings/rollout_0001.safetensors")
        assert body.decode() in json.loads(ask(address)[2])[1]["damage"]
        assert ask(address, "/runs/1/metrics")[0] == 422
        for path in ("/runs/0/metrics", "/runs/1/lineage", "/runs/1/adapters", "/runs/1/recordings/rollout/2"):
            assert ask(address, path)[0] == 200
        shutil.rmtree(bad)
        assert ask(address, "/runs/1/recordings/rollout/2")[0] == 404
        assert json.loads(ask(address)[2])[1]["damage"] == ["config.yaml: missing"]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("localhost", 80, "localhost"),
        ("::1", 8600, "[::1]:8600"),
        ("::ffff:203.0.113.7", 8600, "203.0.113.7:8600"),
    ],
)
def test_an_address_is_written_as_browsers_write_it(host, port, expected):
    assert authority(host, port) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost:9000", {"localhost:9000"}),
        ("[::1]:9000", {"[::1]:9000"}),
        ("runs.example", {"runs.example", "runs.example:8600"}),
        ("203.0.113.7", {"203.0.113.7", "203.0.113.7:8600"}),
        ("::1", {"[::1]", "[::1]:8600"}),
        ("[::1]", {"[::1]", "[::1]:8600"}),
        ("runs.example:80", {"runs.example", "runs.example:80"}),
        ("runs.example:443", {"runs.example", "runs.example:443"}),
    ],
)
def test_a_name_that_is_given_has_its_own_port_or_that_of_the_page_or_none(name, expected):
    assert set(authorities(name, 8600)) == expected


@pytest.mark.parametrize("name", ["", "http://localhost:9000", "a/b", "a:b", "a:99999", "a b", "::1:x", ":9000"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UserError, match=f"^name = {re.escape(repr(name))}: must be HOST or HOST:PORT"):
        authorities(name, 8600)


@pytest.fixture(scope="module")
def renamed(two_runs, serving) -> Iterator[str]:
    """A page behind a forwarded port and a proxy."""
    with serving(two_runs[0], "--name", "localhost:9000", "--name", "[::1]:9000", "--name", "Runs.example") as address:
        yield address


@pytest.mark.parametrize("name", ["localhost:9000", "[::1]:9000", "runs.example", "runs.example:{port}"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_behind_a_forwarded_port_or_a_proxy_it_is_called_by_a_name_that_was_given(renamed, name, scheme):
    name = name.format(port=urlsplit(renamed).port)
    assert ask(renamed, Host=name, Origin=f"{scheme}://{name}")[0] == 200
    assert ask(renamed, Origin=f"{scheme}://{name}")[0] == 200, "a proxy may call the server by its own name"
    assert refusal(renamed, f"{scheme}://{name}") == 101


@pytest.mark.parametrize("name", ["localhost", "localhost:9001", "[::1]", "evil.example", "runs.example:9000"])
def test_a_name_that_is_given_lets_no_other_in(renamed, name):
    status, _, body = ask(renamed, Host=name)
    assert status == 421
    assert body.endswith(b"start the dashboard with --name HOST[:PORT] to call it so")
    for scheme in ("http", "https"):
        assert ask(renamed, Origin=f"{scheme}://{name}")[0] == 403
    assert ask(renamed, Origin=f"https://localhost:{urlsplit(renamed).port}")[0] == 403, "not given, so no proxy's"


def test_what_a_run_writes_is_shown_at_once_though_answers_are_remembered(two_runs, serving, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_runs[0], folder)
    with serving(folder) as address:
        before = json.loads(ask(address, "/runs/0/metrics")[2])
        file = folder / "metrics.jsonl"
        file.write_text(file.read_text() + json.dumps(before[-1] | {"generation": 99}) + "\n")
        after = json.loads(ask(address, "/runs/0/metrics")[2])
    assert [line["generation"] for line in after] == [*(line["generation"] for line in before), 99]

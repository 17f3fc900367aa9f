"""A real server on a real socket: who opens connections and asks nothing keeps nobody else out."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from interp.serve import security
from interp.serve.app import Explorer, application
from interp.serve.connections import Connection, server
from interp.serve.runs import Index

TOKEN = "secret-of-this-test"
HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@contextmanager
def running(folder: Path, serve: type[uvicorn.Server] | None = None) -> Iterator[int]:
    """A server; of uvicorn's own making with a limit on connections where it is asked for."""
    heard = socket.create_server(("127.0.0.1", 0))
    port = heard.getsockname()[1]
    app = application(Explorer(Index([folder]), None), TOKEN, port)
    facts: dict[str, Any] = {"interface": "asgi3", "log_level": "error", "lifespan": "off"}
    plain = serve and serve(uvicorn.Config(lambda: app, factory=True, limit_concurrency=64, **facts))
    made = plain or server(app)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [heard]}, daemon=True)
    thread.start()
    yield port
    made.should_exit = True
    thread.join(10)
    heard.close()


def asked(port: int, path: str = "/", **heads: str) -> tuple[int, str]:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    line.request("GET", path, headers=heads)
    found = line.getresponse()
    text = found.read().decode()
    line.close()
    return found.status, text


def opened(port: int, n: int) -> list[socket.socket]:
    found = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(n)]
    for one in found:
        one.sendall(HALF)
    return found


def closed(lines: Sequence[socket.socket]) -> int:
    """How many were closed by the other end."""
    n = 0
    for one in lines:
        one.setblocking(False)
        try:
            n += one.recv(1) == b""
        except BlockingIOError:
            continue
        except ConnectionError:
            n += 1
    return n


def ends(one: socket.socket) -> bool:
    """Whether the other end closes it within some seconds."""
    one.settimeout(8)
    try:
        while one.recv(1 << 16):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def test_eighty_half_open_connections_keep_nobody_out(tmp_path: Path) -> None:
    with running(tmp_path) as port:
        held = opened(port, 80)
        assert [asked(port)[0] for _ in range(5)] == [200] * 5
        assert closed(held) == 0
        [one.close() for one in held]


def test_a_limit_on_connections_would_keep_them_out(tmp_path: Path) -> None:
    with running(tmp_path, uvicorn.Server) as port:
        held = opened(port, 80)
        time.sleep(0.2)
        assert asked(port)[0] == 503
        [one.close() for one in held]


def test_the_one_that_waited_longest_is_closed_and_a_silent_one_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "most", 20)
    with running(tmp_path) as port:
        held = opened(port, 30)
        assert asked(port)[0] == 200
        assert closed(held[:9]) == 9 and closed(held[12:]) == 0
        monkeypatch.setattr(Connection, "ask", 0.3)
        late = opened(port, 3)
        time.sleep(1.0)
        assert closed(late) == 3
        [one.close() for one in (*held, *late)]


def test_a_slow_body_and_a_second_half_request_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "answer", 1.0)
    monkeypatch.setattr(Connection, "ask", 1.0)
    with running(tmp_path) as port, ExitStack() as left:
        heads = f"Host: 127.0.0.1:{port}\r\nX-Interp-Token: {TOKEN}\r\n"
        slow, twice = (left.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in "ab")
        kind = "Content-Type: application/json\r\nContent-Length: 50\r\n"
        slow.sendall(f"POST /api/jobs HTTP/1.1\r\n{heads}{kind}\r\n{{".encode())
        twice.sendall(f"GET /api/runs HTTP/1.1\r\n{heads}\r\n".encode())
        assert b"200 OK" in twice.recv(1 << 16)
        twice.sendall(HALF)
        assert ends(slow) and ends(twice)


def test_too_many_requests_at_once_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "AT_ONCE", 0)
    with running(tmp_path) as port:
        status, text = asked(port)
    assert status == 503 and "Try again" in json.loads(text)["error"]

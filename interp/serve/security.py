"""Who may ask: every request is checked before anything else looks at it.

A page of another site can make a browser send requests to this machine, and can point its own name at it.
So the host and the origin must be ours, and what is not public needs a secret that only the address printed
at the shell holds. The page keeps it for its tab and sends it in a header: a cookie would go to every other
port of this machine.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

__all__ = ["AT_ONCE", "BODY", "POLICY", "READ", "Guard", "reply"]

BODY = 256 * 1024
"""Bytes of a request, at most."""
AT_ONCE = 64
"""Requests that are answered at once, at most."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
SECRET = "x-interp-token"
READ = "interp.body"
"""Where the application finds the whole request in its scope."""


def reply(status: int, error: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The two messages of an answer that refuses.

    Args:
        status: of HTTP.
        error: why, in one sentence.
    """
    body = json.dumps({"error": error}).encode()
    sizes = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": status, "headers": sizes}
    return start, {"type": "http.response.body", "body": body}


class Guard:
    """ASGI middleware that refuses what is not ours, and adds the headers that bind the browser.

    Args:
        app: what answers.
        token: the secret.
        port: that is listened on.
    """

    def __init__(self, app: Any, token: str, port: int) -> None:
        self.app, self.token, self.answering = app, token.encode(), 0
        self.hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket, say: there are none
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return

        self.answering += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self.answering -= 1

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""

        async def bound(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        refusal = self._refusal(scope)
        body = b"" if refusal else await _body(receive)
        if body is None:
            refusal = (413, f"a request may have {BODY:,} bytes at most.")
        if refusal:
            for message in reply(*refusal):
                await bound(message)
            return
        await self.app({**scope, READ: body}, receive, bound)

    def _refusal(self, scope: Mapping[str, Any]) -> tuple[int, str] | None:
        """Why a request is refused, by its head alone; None where it is not."""
        if self.answering > AT_ONCE:
            return 503, f"{AT_ONCE} requests are being answered already. Try again in a moment."
        heads: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            heads.setdefault(name.lower(), []).append(value)
        host = heads.get(b"host", [])
        if len(host) != 1 or host[0].lower() not in self.hosts:
            return 421, "this server answers to 127.0.0.1 alone."
        if any(one != b"http://" + host[0].lower() for one in heads.get(b"origin", [])):
            return 403, "requests of other pages are refused."
        site = heads.get(b"sec-fetch-site", [b"none"])
        if any(one not in (b"same-origin", b"none") for one in site):
            return 403, "requests of other pages are refused."
        if scope["path"].startswith("/api/"):
            given = heads.get(SECRET.encode(), [b""])
            if len(given) != 1 or not secrets.compare_digest(given[0], self.token):
                return 401, "the secret is missing or wrong: open the address that `interp serve` printed."
        sizes = heads.get(b"content-length", [])
        if any(not one.isdigit() or len(one) > 12 or int(one) > BODY for one in sizes):
            return 413, f"a request may have {BODY:,} bytes at most."
        kind = heads.get(b"content-type", [b""])[0].partition(b";")[0].strip().lower()
        if scope["method"] == "POST" and kind != b"application/json":
            return 415, "requests are JSON (content-type: application/json)."
        return None


async def _body(receive: Any) -> bytes | None:
    """The whole of a request, or None where it is too long."""
    found = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return found
        found += message.get("body", b"")
        if len(found) > BODY:
            return None
        if not message.get("more_body"):
            return found

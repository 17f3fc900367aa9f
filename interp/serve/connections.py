"""Connections: one that is opened and asks nothing keeps nobody else out.

A limit on all connections can be used up by 64 that never send a request. So only requests that are being
answered are limited (:class:`interp.serve.security.Guard`), and a connection has a limited time to ask.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

__all__ = ["Connection", "server"]


def server(app: Any) -> Server:
    """A server that says nothing of itself, knows no proxy, and waits for no slow caller.

    Args:
        app: what answers.
    """
    options: dict[str, Any] = {"log_level": "error", "access_log": False, "ws": "none", "lifespan": "off"}
    options |= {"interface": "asgi3", "proxy_headers": False, "server_header": False}
    return Server(Config(lambda: app, factory=True, **options, http=Connection, timeout_graceful_shutdown=2))


class Connection(H11Protocol):
    """A connection of uvicorn that is closed where no whole request comes in time.

    Where too many are open without a request, the one that has waited longest is closed.

    Attributes:
        ask: seconds in which a request must have come, with its head.
        answer: seconds in which it must have been answered, its body read and the answer taken.
        most: connections without a request, at most.
    """

    ask = 10.0
    answer = 60.0
    most = 128

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._whole, self.app = self.app, self._answered
        self._timer: asyncio.TimerHandle | None = None
        self.since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._allow(self.ask)
        self.since = self.loop.time()
        others = [one for one in self.connections if isinstance(one, Connection) and one.since is not None]
        if len(others) > self.most:
            oldest = min(others, key=lambda one: one.since or 0.0)
            oldest.since = None  # it is gone in the loop's next turn, and is not to be chosen again
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._allow(None)
        super().connection_lost(exc)

    async def _answered(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, and wait for the next one."""
        self.since = None
        self._allow(self.answer)
        try:
            await self._whole(scope, receive, send)
        finally:
            self.since = self.loop.time()
            self._allow(None if self.transport.is_closing() else self.ask)

    def _allow(self, seconds: float | None) -> None:
        """Close it after so many seconds from now; None for no limit."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

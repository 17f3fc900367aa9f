"""A headless Chromium driven through a pipe by its own protocol: no port, no driver, no dependency."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT = 40.0


def program() -> str | None:
    """Where Chromium is; None where it is not installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """One page: what it is told to do, and what it said."""

    def __init__(self, out: int, read: int) -> None:
        self._out, self._read, self._left, self._number, self._session = out, read, b"", 0, ""
        self.said: list[dict[str, Any]] = []

    def open(self) -> None:
        made = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=made, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, /, **params: Any) -> dict[str, Any]:
        self._number += 1
        content: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        content |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(content).encode() + b"\0")
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            message = self._message(end)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self.said.append(message)
        raise TimeoutError(method)

    def _message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._left:
            if not select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("Chromium says nothing")
            self._left += os.read(self._read, 1 << 20)
        line, _, self._left = self._left.partition(b"\0")
        return json.loads(line)

    def go(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def js(self, text: str) -> Any:
        found = self.call("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, text: str, seconds: float = WAIT) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.js(text):
                return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {text}\n{self.js('document.body.innerText')[:2000]}")

    def key(self, name: str, text: str = "") -> None:
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40}
        facts: dict[str, Any] = {"key": name, "code": name, "windowsVirtualKeyCode": codes.get(name, 0)}
        text = text or ("\r" if name == "Enter" else "")
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def size(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def dark(self, dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def whole(self, path: Path, width: int) -> None:
        """A picture of the whole page at a width."""
        self.size(width)
        time.sleep(0.2)
        height = int(self.js("document.documentElement.scrollHeight"))
        self.size(width, max(400, min(height, 6000)))
        self.js("scrollTo(0, 0)")
        self.picture(path)


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A page of a Chromium of its own; both are gone afterwards."""
    found = program()
    assert found is not None
    theirs_read, ours_out = os.pipe()
    ours_read, theirs_out = os.pipe()

    def placed() -> None:
        reading, writing = os.dup(theirs_read), os.dup(theirs_out)
        os.dup2(reading, 3)
        os.dup2(writing, 4)

    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-pipe",
        "--hide-scrollbars",
    ]
    flags += [f"--user-data-dir={folder}", "--no-first-run", "--disable-dev-shm-usage", "about:blank"]
    process = subprocess.Popen(
        [found, *flags],
        preexec_fn=placed,
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_read)
    os.close(theirs_out)
    try:
        page = Page(ours_out, ours_read)
        page.open()
        yield page
    finally:
        process.kill()
        process.wait()
        os.close(ours_out)
        os.close(ours_read)

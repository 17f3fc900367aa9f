"""The routes of the explorer: a page, its script and style, and JSON. Everything passes the guard first."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from interp import report
from interp.errors import ArtifactError, InterpError
from interp.serve.jobs import Full, Job, Queue
from interp.serve.requests import read_request
from interp.serve.runs import Index, compared
from interp.serve.security import READ, Guard
from interp.serve.views import VIEWS, view_of

__all__ = ["Explorer", "application"]

HERE = Path(__file__).resolve().parent / "static"
TEMPLATES = Path(report.__file__).resolve().parent / "templates"
FILES: dict[str, tuple[Path, str]] = {
    "/": (HERE / "index.html", "text/html"),
    "/explorer.js": (HERE / "explorer.js", "text/javascript"),
    "/explorer.css": (HERE / "explorer.css", "text/css"),
    "/page.css": (TEMPLATES / "page.css", "text/css"),
}
"""Every file that is served without the secret: address -> file and kind."""
PAGES = 100
"""Opened pages that are remembered."""
SANDBOX = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""What an opened report may do: nothing. It is a file of a run, which somebody else may have made."""

GRAPH = "frame-ancestors 'none'; sandbox allow-scripts"
"""What an opened graph may do, beside the policy in the page itself: run its one script, as nobody's page."""


class Explorer:
    """What the routes work with.

    Args:
        index: of runs.
        queue: of jobs; None to serve runs alone.
    """

    def __init__(self, index: Index, queue: Queue | None) -> None:
        self.index, self.queue = index, queue
        self._pages: dict[str, tuple[Callable[[], bytes], str]] = {}

    def opened(self, content: Callable[[], bytes], policy: str) -> str:
        """An address of its own for a page, which a new tab can open: random, known to nobody else.

        Args:
            content: gives the page.
            policy: what it may do.
        """
        name = secrets.token_urlsafe(24)
        self._pages[name] = (content, policy)
        for old in list(self._pages)[:-PAGES]:
            del self._pages[old]
        return f"/pages/{name}"

    # Routes -----------------------------------------------------------------------------------------------

    def about(self, _: Request) -> Response:
        """What there is: the model, the views."""
        if self.queue is None:
            return JSONResponse({"model": None, "views": []})
        views = [one.described() for one in VIEWS.values()]
        limits = {"seconds": self.queue.limit, "waiting": self.queue.waiting}
        return JSONResponse({"model": self.queue.worker.facts, "views": views, "limits": limits})

    def submit(self, request: Request) -> Response:
        """Put a job into the queue."""
        if self.queue is None:
            return _error(403, "this explorer shows runs alone (--read-only).")
        content = _read(request.scope[READ])
        if not isinstance(content, Mapping) or set(content) != {"view", "request"}:
            return _error(400, "a job is a mapping of view and request.")
        asked = read_request(view_of(content["view"]).fields, content["request"])
        job = self.queue.submit(content["view"], asked)
        return JSONResponse(self._told(job), 202)

    def _told(self, job: Job) -> dict[str, Any]:
        assert self.queue is not None
        found: dict[str, Any] = {"id": job.id, "view": job.view, "state": job.state, "error": job.error}
        found |= {"note": job.note}
        found |= {
            "seconds": round(job.seconds, 2),
            "before": self.queue.place(job),
            "request": dict(job.request),
        }
        return found

    def job(self, request: Request) -> Response:
        """How far a job is, and its answer; DELETE cancels it."""
        job = None if self.queue is None else self.queue.get(request.path_params["id"])
        if job is None or self.queue is None:
            return _error(404, "there is no such job; only the last ones are kept.")
        if request.method == "DELETE":
            self.queue.cancel(job)
            return JSONResponse(self._told(job))
        answer = {key: one for key, one in job.answer.items() if key != "page"} if job.state == "done" else {}
        opens = bool(job.answer.get("page")) if job.state == "done" else False
        return JSONResponse({**self._told(job), "answer": answer, "opens": opens})

    def open_job(self, request: Request) -> Response:
        """An address for the page of a job's answer, whose nodes open."""
        job = None if self.queue is None else self.queue.get(request.path_params["id"])
        page = str(job.answer.get("page", "")) if job is not None else ""
        if not page:
            return _error(404, "there is no such page.")
        return JSONResponse({"address": self.opened(page.encode, GRAPH)})

    def runs(self, request: Request) -> Response:
        """The index."""
        return JSONResponse({"runs": self.index.rows(request.query_params.get("q", "")[:200])})

    def run(self, request: Request) -> Response:
        """One run."""
        return JSONResponse(self.index.run(request.path_params["id"]))

    def figure(self, request: Request) -> Response:
        """A figure of a run, as SVG that can only be shown as an image."""
        found = self.index.figure(request.path_params["id"], int(request.path_params["number"]))
        return Response(found, media_type="image/svg+xml", headers={"content-security-policy": SANDBOX})

    def open_run(self, request: Request) -> Response:
        """An address for the report of a run."""
        name = request.path_params["id"]
        self.index.page(name)
        return JSONResponse({"address": self.opened(lambda: self.index.page(name), SANDBOX)})

    def compare(self, request: Request) -> Response:
        """Two runs side by side."""
        first, second = (self.index.run(request.path_params[key]) for key in ("first", "second"))
        return JSONResponse(compared(first, second))

    def page(self, request: Request) -> Response:
        """A page that was opened."""
        content, policy = self._pages.get(request.path_params["name"], (None, ""))
        if content is None:
            return _error(404, "this address is not known any more. Open the page again from the explorer.")
        return Response(content(), media_type="text/html", headers={"content-security-policy": policy})


def _file(request: Request) -> Response:
    path, kind = FILES[request.url.path]
    return Response(path.read_bytes(), media_type=kind)


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _failed(_: Request, error: Exception) -> Response:
    status = 429 if isinstance(error, Full) else 404 if isinstance(error, ArtifactError) else 400
    return _error(status, str(error))


def _unexpected(_: Request, error: Exception) -> Response:
    return _error(500, f"{type(error).__name__}. This is a defect of interp: please report it.")


def application(explorer: Explorer, token: str, port: int) -> Guard:
    """The application, behind its guard.

    Args:
        explorer: what the routes work with.
        token: the secret.
        port: that is listened on.
    """
    one = explorer
    routes = [
        *(Route(path, _file) for path in FILES),
        Route("/api/about", one.about),
        Route("/api/jobs", one.submit, methods=["POST"]),
        Route("/api/jobs/{id}", one.job, methods=["GET", "DELETE"]),
        Route("/api/jobs/{id}/page", one.open_job),
        Route("/api/runs", one.runs),
        Route("/api/runs/{id}", one.run),
        Route("/api/runs/{id}/figures/{number:int}", one.figure),
        Route("/api/runs/{id}/page", one.open_run),
        Route("/api/compare/{first}/{second}", one.compare),
        Route("/pages/{name}", one.page),
    ]
    handlers: Mapping[Any, Any] = {InterpError: _failed, Exception: _unexpected}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, port)

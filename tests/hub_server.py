"""A stand-in of the Hugging Face Hub: the HTTP calls that sharing makes, answered from memory on loopback.

Repositories are commits (path -> bytes) and branches. Files whose name ends in ``.safetensors`` go through
the LFS calls, as the Hub asks for; others come inside of the commit. What was asked is kept in ``calls``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

__all__ = ["Hub", "Repo", "running"]


@dataclass
class Repo:
    """A repository."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Add files on top of a branch; the commit's name is a hash of all that is in it."""
        whole = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        told = repr((sorted(whole.items()), len(self.commits))).encode()
        name = hashlib.sha1(told).hexdigest()
        self.commits[name], self.branches[branch] = whole, name
        return name


@dataclass
class Hub:
    """What is on the stand-in, and what it was asked."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    status: int = 0
    """An error that every call is answered with, where it is not 0."""

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision."""
        found = self.repos[repo]
        return found.commits[found.branches.get(revision, revision)]


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", place: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.place = status, code, place


@contextmanager
def running() -> Iterator[Hub]:
    """Serve an empty Hub."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answered()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answered(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.state.calls.append(f"{self.command} {path}")
        try:
            if self.state.status:
                raise _Refused(self.state.status)
            content, headers = self._answer(path, body)
            self._send(200, content, headers)
        except _Refused as refused:
            told = json.dumps({"url": f"{self.state.url}/{refused.place}", "error": refused.code}).encode()
            self._send(refused.status, told, {"X-Error-Code": refused.code} if refused.code else {})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _answer(self, path: str, body: bytes) -> tuple[bytes, dict[str, str]]:
        if path == "/api/repos/create":
            return self._json(self._created(json.loads(body)))
        if path == "/api/validate-yaml":
            return self._json({"errors": _faults(json.loads(body)["content"]), "warnings": []})
        if found := re.fullmatch(r"/lfs/(\w+)", path):
            self.state.blobs[found[1]] = body
            return b"", {}
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            return self._json(
                {"transfer": "basic", "objects": [self._place(one) for one in json.loads(body)["objects"]]}
            )
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/([^/]+)", path):
            return self._json(self._api(self._repo(found[1]), found[1], found[2], found[3], body))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(self._repo(found[1]), found[2], found[3])
        raise _Refused(404)

    @staticmethod
    def _json(content: Any) -> tuple[bytes, dict[str, str]]:
        return json.dumps(content).encode(), {"Content-Type": "application/json"}

    def _repo(self, name: str) -> Repo:
        if name not in self.state.repos:
            raise _Refused(404, "RepoNotFound")
        return self.state.repos[name]

    def _created(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"{asked.get('organization') or 'user'}/{asked['name']}"
        if name in self.state.repos:
            raise _Refused(409, place=name)
        self.state.repos[name] = Repo(private=asked.get("private") or asked.get("visibility") == "private")
        self.state.repos[name].commit("main", {".gitattributes": b""})
        return {"url": f"{self.state.url}/{name}", "id": name, "name": name}

    def _place(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.state.blobs:
            return dict(asked)
        return {
            **asked,
            "actions": {"upload": {"href": f"{self.state.url}/lfs/{asked['oid']}", "header": {}}},
        }

    def _api(self, repo: Repo, name: str, what: str, revision: str, body: bytes) -> Any:
        if what == "branch":
            if revision in repo.branches:
                raise _Refused(409)
            repo.branches[revision] = repo.branches["main"]
            return {}
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise _Refused(404, "RevisionNotFound")
        files = repo.commits[commit]
        if what == "revision":
            return {"id": name, "sha": commit, "siblings": [{"rfilename": one} for one in files]}
        if what == "tree":
            return [_entry(path, content) for path, content in files.items()]
        if what == "preupload":
            asked = json.loads(body)["files"]
            modes = {
                one["path"]: "lfs" if one["path"].endswith(".safetensors") else "regular" for one in asked
            }
            return {
                "files": [
                    {"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()
                ]
            }
        assert what == "commit"
        new: dict[str, bytes] = {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                new[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            if line["key"] == "lfsFile":
                new[line["value"]["path"]] = self.state.blobs[line["value"]["oid"]]
        made = repo.commit(revision, new)
        return {"commitUrl": f"{self.state.url}/{name}/commit/{made}", "commitOid": made}

    def _file(self, repo: Repo, revision: str, path: str) -> tuple[bytes, dict[str, str]]:
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise _Refused(404, "RevisionNotFound")
        if path not in repo.commits[commit]:
            raise _Refused(404, "EntryNotFound")
        content = repo.commits[commit][path]
        return content, {"ETag": f'"{_blob(content)}"', "X-Repo-Commit": commit}


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
    if path.endswith(".safetensors"):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return found


def _faults(card: str) -> list[dict[str, str]]:
    """What the Hub refuses of a card's front matter."""
    _, front, _ = card.split("---", 2)
    facts = yaml.safe_load(front)
    wrong = [name for name in ("library_name",) if not isinstance(facts.get(name), str)]
    wrong += [] if all(isinstance(one, str) for one in facts.get("tags", [])) else ["tags"]
    bases = [facts["base_model"]] if "base_model" in facts else []
    wrong += [one for one in bases if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(one))]
    return [{"message": f"{one} is not valid"} for one in wrong]

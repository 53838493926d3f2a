"""A server on the loopback interface that answers as the Hugging Face hub does, for datasets and models' revisions.

>>> with Hub({"org/sums": Repo({"test.jsonl": b'{"question": "1+1", "answer": 2}'})}) as hub:
...     subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url})

It knows the requests that ``datasets.load_dataset`` and ``HfApi.dataset_info`` make: repository
information, the file tree, and files (HEAD and GET); of models, refs, revisions, the tree and files, whole and in
parts.
Errors carry the hub's own headers (``X-Error-Code``), by which the client tells them apart. ``requests``
lists what was asked, as ``METHOD path``.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a_token_of_somebody_who_accepted_the_terms"
BAD_TOKEN = "hf_a_token_of_somebody_who_did_not"


@dataclass
class Repo:
    """files: path -> content. gated: only ``TOKEN`` may read the files; anybody reads the description."""

    files: dict[str, bytes]
    gated: bool = False
    branch: str = "main"

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Model:
    """branches, tags: name -> path -> content. ranges: parts of files are sent where they are asked for.

    damaged: of a file, how many times it is sent with its last byte changed. held: of a file, as many bytes are
    sent and no more until ``go_on`` is set.
    """

    branches: dict[str, dict[str, bytes]]
    tags: dict[str, dict[str, bytes]] = field(default_factory=dict)
    ranges: bool = True
    damaged: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    go_on: threading.Event = field(default_factory=threading.Event)

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files of a branch, a tag or a commit."""
        named = {**self.branches, **self.tags}
        return {**{commit(files): files for files in named.values()}, **named}.get(revision)


def commit(files: dict[str, bytes]) -> str:
    """The commit of a revision with these files."""
    return Repo(files).sha


class Hub:
    """Serves ``repos`` (name -> Repo) at ``url`` while it is entered. fail: answer 500 to everything."""

    def __init__(
        self, repos: dict[str, Repo], *, models: dict[str, Model] | None = None, fail: bool = False
    ) -> None:
        self.repos = repos
        self.models = models or {}
        self.fail = fail
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        if hub.fail:
            return self._send(500, b"down for maintenance")
        parts = path.strip("/").split("/")
        if parts[0] == "api" and parts[1] == "datasets":
            return self._api("/".join(parts[2:4]), parts[4:])
        if parts[0] == "datasets" and parts[3] == "resolve":
            return self._file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        if parts[0] == "api" and parts[1] == "models":
            return self._model("/".join(parts[2:4]), parts[4], parts[5:])
        if parts[2:3] == ["resolve"]:
            return self._model("/".join(parts[:2]), "resolve", parts[3:])
        return self._send(404, b"", {"X-Error-Message": f"nothing at {path}"})

    def _model(self, name: str, what: str, rest: list[str]) -> None:
        model: Model | None = self.server.hub.models.get(name)  # type: ignore[attr-defined]
        if model is None:
            return self._error(401, "RepoNotFound", "Repository not found")
        if what == "refs":
            kinds = {
                "branches": ("heads", model.branches),
                "converts": ("", {}),
                "tags": ("tags", model.tags),
            }
            return self._json(
                {
                    key: [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": "0" * 40} for n in named]
                    for key, (kind, named) in kinds.items()
                }
            )
        files = model.at(rest[0])
        if files is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {rest[0]}")
        if what == "revision":
            return self._json({"id": name, "sha": commit(files), "tags": [], "siblings": []})
        if what == "tree":
            return self._json(_entries(Repo(files)))
        path = "/".join(rest[1:])
        content = files.get(path)
        if content is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        etag = _lfs(content)["oid"] if path.endswith(".safetensors") else _oid(content)
        headers = {"X-Repo-Commit": commit(files), "ETag": f'"{etag}"'}
        if self.command == "GET" and model.damaged.get(path):
            model.damaged[path] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        if model.ranges and (asked := self.headers.get("Range")):
            first, last = asked.removeprefix("bytes=").split("-")
            return self._send(206, content[int(first) : int(last) + 1 if last else None], headers)
        if self.command == "GET" and path in model.held:
            self._send(200, content[: model.held[path]], {**headers, "Content-Length": str(len(content))})
            model.go_on.wait()
            self.wfile.write(content[model.held[path] :])
            return None
        return self._send(200, content, headers)

    def _api(self, name: str, rest: list[str]) -> None:
        repo = self._repo(name, rest[1] if len(rest) > 1 else None)
        if repo is None:
            return
        match rest[:1]:
            case [] | ["revision"]:
                self._json(
                    {
                        "id": name,
                        "sha": repo.sha,
                        "private": False,
                        "gated": "auto" if repo.gated else False,
                        "disabled": False,
                        "tags": [],
                        "downloads": 0,
                        "likes": 0,
                        "siblings": [{"rfilename": path} for path in repo.files],
                    }
                )
            case ["tree"]:
                folder = "/".join(rest[2:])
                below = [e for e in _entries(repo) if e["path"].startswith(f"{folder}/" if folder else "")]
                self._json(below) if below else self._error(404, "EntryNotFound", f"no {folder}")
            case _:
                self._error(404, "EntryNotFound", f"nothing at {self.path}")

    def _file(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name, revision)
        if repo is None:
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo.gated and token != TOKEN:
            self._error(403 if token else 401, "GatedRepo", f"Access to dataset {name} is restricted")
            return
        content = repo.files.get(path)
        headers = {"X-Repo-Commit": repo.sha}
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found", headers)
            return
        self._send(200, content, {**headers, "ETag": f'"{_oid(content)}"'})

    def _repo(self, name: str, revision: str | None) -> Repo | None:
        repo = self.server.hub.repos.get(name)  # type: ignore[attr-defined]
        if repo is None:
            # The hub answers so to strangers, whether a repository is private or not there.
            self._error(401, "RepoNotFound", "Repository not found")
            return None
        if revision not in (None, repo.branch, repo.sha):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        self._send(status, json.dumps({"error": message}).encode(), told)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """The requests are in ``Hub.requests``; standard error stays clean."""


def _entries(repo: Repo) -> list[dict[str, Any]]:
    """The tree: every file, and every folder above one."""
    folders = {
        "/".join(path.split("/")[:depth]) for path in repo.files for depth in range(1, path.count("/") + 1)
    }
    return [
        *({"type": "directory", "path": path, "oid": _oid(path.encode()), "size": 0} for path in folders),
        *(
            {
                "type": "file",
                "path": path,
                "oid": _oid(content),
                "size": len(content),
                **({"lfs": _lfs(content)} if path.endswith(".safetensors") else {}),
            }
            for path, content in repo.files.items()
        ),
    ]


def _oid(content: bytes) -> str:
    """As git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _lfs(content: bytes) -> dict[str, Any]:
    return {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}

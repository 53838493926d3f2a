"""A loopback stand-in for W&B: enough of its API for wandb to send runs, resume them, upload artifacts, and read
the versions of one.

    with running() as server:
        subprocess.run(…, env={"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "…"})
        server.runs["<run id>"].history

What wandb sends is answered in the shape its queries ask for; a query it does not know is answered with
nothing, and stands in ``server.unknown``.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loopback import Handler, serving

COLLECTION = "checkpoints"
TIME = "2026-11-21T00:00:00Z"


@dataclass
class Run:
    """What was sent of one run. history: its rows, by their offset; alerts: what was asked to be told of it."""

    group: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Version:
    """A version of the artifact ``team/llama/checkpoints``."""

    files: dict[str, bytes]
    metadata: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    state: str = "COMMITTED"


class Server:
    """What has arrived. files: uploads by name; artifacts: those committed, by collection name.

    versions: those of an artifact that can be read, the oldest first. refuses_alerts: says so, with a 200.
    elsewhere: where it says that alerts are taken. is_page: answers them with one, as a proxy does. login: who sent
    the last one, as HTTP has it. asked: how often it was asked anything.
    """

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, Run] = {}
        self.files: dict[str, bytes] = {}
        self.artifacts: list[str] = []
        self.unknown: list[str] = []
        self.versions: list[Version] = []
        self.refuses_alerts = False
        self.elsewhere = ""
        self.asked = 0
        self.login = ""
        self.is_page = False

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        method = getattr(self, f"on_{name[1]}", None) if name else None
        if method is None:
            self.unknown.append(name[1] if name else query)
            return {}
        answer: dict[str, Any] = method(variables)
        return answer

    def upload(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "displayName": name,
            "uploadUrl": f"{self.url}/upload/{name}",
            "uploadHeaders": [],
        }

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "viewer": {"id": "u", "entity": "team", "username": "u", "flags": "{}", "teams": {"edges": []}}
        }

    on_GetDefaultEntity = on_Viewer

    def on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        bucket = None
        if run := self.runs.get(variables["name"]):
            bucket = {
                "id": "b",
                "name": variables["name"],
                "summaryMetrics": json.dumps(run.summary),
                "logLineCount": 0,
                "eventsLineCount": 0,
                "historyLineCount": len(run.history),
                "historyTail": json.dumps([json.dumps(row) for row in list(run.history.values())[-1:]]),
                "eventsTail": "[]",
                "config": json.dumps(run.config),
                "tags": [],
                "wandbConfig": '{"t": 1}',
            }
        return {
            "model": {"id": "p", "name": "evals", "entity": {"id": "e", "name": "team"}, "bucket": bucket}
        }

    def on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        new = variables["name"] not in self.runs
        run = self.runs.setdefault(variables["name"], Run())
        run.group = variables["groupName"] or run.group
        run.config |= json.loads(variables["config"] or "{}")
        project = {"name": variables["project"], "entity": {"name": "team"}}
        bucket = {"id": "b", "name": variables["name"], "displayName": "d", "project": project}
        return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": len(run.history)}, "inserted": new}}

    def on_Run(self, variables: dict[str, Any]) -> dict[str, Any]:
        found = None
        if run := self.runs.get(variables["name"]):
            found = {"projectId": "1", "id": "b", "name": variables["name"], "displayName": "d", "tags": []}
            found |= {"state": "finished", "config": json.dumps(run.config), "group": run.group}
            found |= {"summaryMetrics": json.dumps(run.summary), "historyLineCount": len(run.history)}
            found |= {"user": {"name": "u", "username": "u"}, "readOnly": False, "createdAt": TIME}
        return {"project": {"run": found}}

    def on_NotifyScriptableRunAlert(self, variables: dict[str, Any]) -> dict[str, Any]:
        if not self.refuses_alerts:
            self.runs[variables["runName"]].alerts.append(variables)
        return {"notifyScriptableRunAlert": {"success": not self.refuses_alerts}}

    def on_ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def on_CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        artifact = {
            "id": variables["input"]["artifactCollectionName"],
            "state": "PENDING",
            "artifactSequence": {"latestArtifact": None},
        }
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", **self.upload(f"{variables['artifactID']}/{variables['name']}")}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def on_CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for file in variables["input"]["artifactFiles"]:
            upload = self.upload(f"{file['artifactID']}/{file['name']}")
            more = {"id": "f", "name": file["name"], "displayName": file["name"], "storagePath": file["name"]}
            artifact = {"id": file["artifactID"]}
            edges.append({"node": {**upload, **more, "uploadMultipartUrls": None, "artifact": artifact}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(variables["artifactID"])
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "x"}}}

    def on_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [self.upload(name) for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def on_ArtifactMembershipByName(self, variables: dict[str, Any]) -> dict[str, Any]:
        collection, _, alias = variables["name"].partition(":")
        numbers = range(len(self.versions)) if collection == COLLECTION else ()
        known = [n for n in numbers if alias in (f"v{n}", *self.versions[n].aliases)]
        if alias == "latest":
            known = list(numbers)
        membership = None
        if known:
            artifact = self.artifact(known[-1])
            own = {"id": "m", "versionIndex": known[-1], "createdAt": TIME, "aliases": artifact["aliases"]}
            membership = {**own, "artifactCollection": artifact["artifactSequence"], "artifact": artifact}
        return {"project": {"artifactCollectionMembership": membership}}

    def on_ProjectArtifacts(self, variables: dict[str, Any]) -> dict[str, Any]:
        asked = json.loads(variables["filters"] or "{}").get("state")
        states = [version.state for version in self.versions]
        numbers = [n for n, state in enumerate(states) if asked in (None, state)][::-1]
        first = int(variables["cursor"] or 0)
        page = numbers[first : first + variables["perPage"]]
        end = first + len(page)
        found = {
            "__typename": "ArtifactSequence",
            "artifacts": {
                "totalCount": len(numbers),
                "pageInfo": {"endCursor": str(end), "hasNextPage": end < len(numbers)},
                "edges": [{"version": f"v{n}", "node": self.artifact(n)} for n in page],
            },
        }
        return {"project": {"artifactType": {"artifactCollection": found}}}

    def artifact(self, number: int) -> dict[str, Any]:
        version = self.versions[number]
        project = {"id": "p", "internalId": "p", "name": "llama", "entity": {"name": "team"}}
        collection = {"__typename": "ArtifactSequence", "name": COLLECTION, "project": project}
        aliases = [{"id": a, "alias": a, "artifactCollection": collection} for a in version.aliases]
        return {
            "id": f"artifact-{number}",
            "artifactSequence": collection,
            "versionIndex": number,
            "artifactType": {"name": "model"},
            "description": None,
            "metadata": json.dumps(version.metadata),
            "ttlDurationSeconds": -1,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": version.state,
            "size": 1,
            "digest": "d",
            "commitHash": "c",
            "fileCount": len(version.files),
            "createdAt": TIME,
            "updatedAt": None,
            "aliases": aliases,
        }

    def on_FetchArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        manifest = {"file": {"directUrl": f"{self.url}/manifest/{variables['id']}"}}
        return {"artifact": {"currentManifest": manifest}}

    def download(self, path: str) -> bytes | None:
        """A manifest, or a file of any version, by its digest."""
        *_, kind, name = path.split("/")
        if kind == "manifest":
            files = self.versions[int(name.removeprefix("artifact-"))].files
            contents = {n: {"digest": _md5(content), "size": len(content)} for n, content in files.items()}
            policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {}}
            return json.dumps({"version": 1, **policy, "contents": contents}).encode()
        stored = (content for version in self.versions for content in version.files.values())
        return next((c for c in stored if hashlib.md5(c).hexdigest() == name), None)

    def stream(self, run: str, files: dict[str, Any]) -> None:
        for number, line in _lines(files.get("wandb-history.jsonl")):
            self.runs[run].history[number] = json.loads(line)
        for _, line in _lines(files.get("wandb-summary.json")):
            self.runs[run].summary = json.loads(line)


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def _lines(chunk: dict[str, Any] | None) -> Iterator[tuple[int, str]]:
    return enumerate(chunk["content"], chunk["offset"]) if chunk else iter(())


@contextmanager
def running() -> Iterator[Server]:
    """Serve on a free loopback port until the end of the block."""
    server = Server()

    class Api(Handler):
        def do_PUT(self) -> None:
            server.files[self.path.removeprefix("/upload/")] = self.body()
            self.reply(200, {})

        def do_POST(self) -> None:
            body = self.body()
            server.asked += 1
            if self.path == "/graphql":
                asked = json.loads(body)
                if "notifyScriptableRunAlert" in asked["query"]:
                    server.login = self.headers.get("Authorization", "")
                    if server.elsewhere:
                        self.reply(302, {}, Location=f"{server.elsewhere}/graphql")
                        return
                    if server.is_page:
                        self.send_response(200)
                        self.send_header("Content-Length", "6")
                        self.end_headers()
                        self.wfile.write(b"<html>")
                        return
                self.reply(200, {"data": server.answer(asked["query"], asked.get("variables") or {})})
                return
            if self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
            self.reply(200, {})  # anything else is W&B's telemetry

        def do_GET(self) -> None:
            server.asked += 1
            content = server.download(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    with serving(Api) as address:
        server.url = f"http://{address}"
        yield server

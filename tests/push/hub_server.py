"""As much of the Hugging Face hub, on loopback, as huggingface_hub asks for to make, fill and read repositories.

The requests are huggingface_hub's own; the answers are as its code reads them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from ..loopback import QuietServer, served

TOKEN = "hf_right"
_OID = "0" * 40


@dataclass
class Repo:
    """A repository: its files, and what is known of it."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    commits: int = 0


@dataclass
class Hub:
    """The hub.

    Attributes:
        url: its address.
        repos: by ``datasets/OWNER/NAME`` or ``models/OWNER/NAME``.
        stored: large files, by hash.
        faults: statuses of the next answers, by kind of request: ``create``, ``tree``, ``commit``, ``put``.
        asked: the kinds of requests, in their order.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any, **more: Any) -> None:
        self.hub = hub
        super().__init__(*args, **more)

    def log_message(self, *_: object) -> None:
        pass

    def say(self, content: Any = None, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps({} if content is None else content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        found = next(((kind, match) for pattern, kind in _ROUTES if (match := re.fullmatch(pattern, path))), None)
        if found is None:
            self.say({"error": f"no such request here: {self.command} {path}"}, 501)
            return
        kind, groups = found[0], found[1].groups()
        self.hub.asked.append(kind)
        if faults := self.hub.faults.get(kind):
            self.say({"error": "fault"}, faults.pop(0))
        elif kind not in ("ping", "put") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say({"error": "Invalid username or password."}, 401, X_Error_Message="Invalid username or password.")
        else:
            getattr(self, f"do_{kind}")(body, *groups)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any

    def do_ping(self, body: bytes, *_: str) -> None:
        self.say()

    def do_yaml(self, body: bytes) -> None:
        self.say({"errors": [], "warnings": []})

    def do_create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
        shown = name.removeprefix("models/")
        if name in self.hub.repos:
            self.say({"error": "You already created this repo", "url": f"{self.hub.url}/{shown}"}, 409)
            return
        self.hub.repos[name] = Repo(asked.get("visibility") == "private", {".gitattributes": b"*.tar filter=lfs\n"})
        self.say({"url": f"{self.hub.url}/{shown}"})

    def do_info(self, body: bytes, repo: str, *_: str) -> None:
        if repo in self.hub.repos:
            self.say({"id": repo.partition("/")[2], "sha": _OID, "siblings": []})
        else:
            self.say({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    def entries(self, repo: Repo) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for path, data in repo.files.items():
            for parent in [path[: match.start()] for match in re.finditer("/", path)]:
                found[parent] = {"type": "directory", "path": parent, "oid": _OID}
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            found[path] = {"type": "file", "path": path, "size": len(data), "oid": blob}
            if path in repo.large:
                oid = hashlib.sha256(data).hexdigest()
                found[path]["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 134}
        return found

    def do_tree(self, body: bytes, repo: str, revision: str, below: str | None) -> None:
        start, recursive = f"{below[1:]}/" if below else "", "recursive=true" in self.path.lower()
        found = [entry for path, entry in self.entries(self.hub.repos[repo]).items() if path.startswith(start)]
        if below and not found:
            self.say({"error": "not found"}, 404, X_Error_Code="EntryNotFound")
            return
        self.say([entry for entry in found if recursive or "/" not in entry["path"].removeprefix(start)])

    def do_paths(self, body: bytes, repo: str, revision: str) -> None:
        asked = json.loads(body)["paths"]
        entries = self.entries(self.hub.repos[repo])
        self.say([entries[path] for path in ([asked] if isinstance(asked, str) else asked) if path in entries])

    def do_preupload(self, body: bytes, repo: str, revision: str) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith((".tar", ".parquet", ".safetensors")) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.say({"files": modes})

    def do_batch(self, body: bytes, repo: str) -> None:
        objects = []
        for each in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/put/{each['oid']}", "header": {}}}
            objects.append({**each, **({} if each["oid"] in self.hub.stored else {"actions": upload})})
        self.say({"transfer": "basic", "objects": objects})

    def do_put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.stored[oid] = body
        self.say()

    def do_commit(self, body: bytes, name: str, revision: str) -> None:
        repo = self.hub.repos[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.stored[value["oid"]]
                repo.large.add(value["path"])
            elif line["key"] == "deletedFile":
                del repo.files[value["path"]]
        repo.commits += 1
        self.say({"commitUrl": f"{self.hub.url}/{name}/commit/{_OID}", "commitOid": _OID, "success": True})

    def do_resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        repo = self.hub.repos[name if name.startswith("datasets/") else f"models/{name}"]
        if path in repo.files:
            self.say(repo.files[path], ETag=f'"{hashlib.sha1(repo.files[path]).hexdigest()}"', X_Repo_Commit=_OID)
        else:
            self.say({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")


_REPO = r"((?:datasets|models)/[^/]+/[^/]+)"
_ROUTES = [
    (r"/?", "ping"),
    ("/api/validate-yaml", "yaml"),
    ("/api/repos/create", "create"),
    (rf"/api/{_REPO}/tree/([^/]+)(/.+)?", "tree"),
    (rf"/api/{_REPO}/paths-info/([^/]+)", "paths"),
    (rf"/api/{_REPO}/preupload/([^/]+)", "preupload"),
    (rf"/api/{_REPO}/commit/([^/]+)", "commit"),
    (rf"/api/{_REPO}(/revision/[^/]+)?", "info"),
    (r"/(.+)\.git/info/lfs/objects/batch", "batch"),
    ("/put/([0-9a-f]+)", "put"),
    (r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
]


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """A hub while the block runs."""
    hub = Hub()
    with served(QuietServer(("127.0.0.1", 0), partial(_Handler, hub))) as hub.url:
        yield hub

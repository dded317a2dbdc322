"""A hub of models on loopback, as `huggingface_hub` speaks to it: repositories, commits, large files, downloads."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from tests.loopback import serving

LARGE = (".safetensors", "tokenizer.json")
TOKEN = "hf_planted_token"


class Hub:
    """What it holds, and what it was sent.

    Attributes:
        url: its address.
        repositories: files by name, of each repository.
        is_private: by repository.
        large: large files by their SHA-256.
        uploads: number of large files that were sent.
        commits: the message of every commit.
        full: whether it takes no more large files.
    """

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.is_private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.uploads = 0
        self.commits: list[str] = []
        self.full = False

    def sha(self, repository: str) -> str:
        """The revision of a repository: 40 hexadecimal digits."""
        files = sorted((name, hashlib.sha256(content).hexdigest()) for name, content in self.files(repository).items())
        return hashlib.sha1(json.dumps(files).encode()).hexdigest()

    def files(self, repository: str) -> dict[str, bytes]:
        return self.repositories[repository]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Run one while the block lasts."""
    hub = Hub()
    with serving(type("Handler", (_Handler,), {"hub": hub})) as url:
        hub.url = url.removesuffix("/v1")
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body, path = self._body(), unquote(self.path.partition("?")[0])
        if not self._may_write():
            return
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._reply({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            self._preupload(found[1], json.loads(body))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(found[1], body)
        else:
            self._reply({"error": f"no such address: {path}"}, 404)

    def do_PUT(self) -> None:
        content = self._body()
        if self.hub.full:
            self._reply({"error": "no space is left for you"}, 507)
            return
        self.hub.large[self.path.rpartition("/")[2]] = content
        self.hub.uploads += 1
        self._reply({})

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _get(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            if found[1] not in self.hub.repositories:
                self._reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
                return
            files = [{"rfilename": name} for name in self.hub.files(found[1])]
            self._reply({"id": found[1], "sha": self.hub.sha(found[1]), "siblings": files})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            self._reply([self._entry(found[1], name) for name in self.hub.files(found[1])])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.hub.files(found[1])[found[2]]
            sha = self.hub.sha(found[1])
            self._send(content, 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": sha})
        else:
            self._reply({"error": f"no such address: {path}"}, 404)

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._reply({"error": "Invalid username or password."}, 401)
        return False

    def _create(self, wanted: dict) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.hub.repositories:
            self._reply({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
            return
        self.hub.repositories[name] = {}
        self.hub.is_private[name] = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self._reply({"url": f"{self.hub.url}/{name}", "id": name})

    def _preupload(self, name: str, asked: dict) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": self._oid(name, file["path"]),
            }
            for file in asked["files"]
        ]
        self._reply({"files": modes})

    def _entry(self, name: str, file: str) -> dict:
        size = len(self.hub.files(name)[file])
        entry = {"type": "file", "path": file, "size": size, "oid": self._oid(name, file)}
        large = {"lfs": {"oid": entry["oid"], "size": size, "pointerSize": 134}}
        return entry | (large if file.endswith(LARGE) else {})

    def _oid(self, name: str, file: str) -> str | None:
        """What git and the client call the content that a file has."""
        content = self.hub.files(name).get(file)
        if content is None:
            return None
        if file.endswith(LARGE):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def _batch(self, asked: dict) -> None:
        objects = []
        for each in asked["objects"]:
            is_there = each["oid"] in self.hub.large
            upload = {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}
            objects.append(each if is_there else each | {"actions": upload})
        self._reply({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "header":
                    self.hub.commits.append(value["summary"])
                case "file":
                    self.hub.files(name)[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    self.hub.files(name)[value["path"]] = self.hub.large[value["oid"]]
        sha = self.hub.sha(name)
        self._reply({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

"""A server that speaks the part of the hub's API that `huggingface_hub` uses, for models in memory.

The API: huggingface.co/docs/hub/api, huggingface.co/.well-known/openapi.json, and the Git LFS batch API
(github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md). Files of 10,000 bytes or more are stored with LFS, so the
client is sent to another address for them, as it is on the real hub.
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
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.http_server import LocalServer

LFS_FROM = 10_000
GIT_ATTRIBUTES = b"*.onnx filter=lfs diff=lfs merge=lfs -text\n"
MEMBER, READER = "hf_member", "hf_reader"  # a token that may write, and one that may only read public repositories
Files = dict[str, bytes]


@dataclass
class Repository:
    """A repository: its commits by hash, and its branches. Newer commits do not change older ones."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str = "main") -> str:
        """Makes a commit with exactly these files; its hash."""
        content = [len(self.commits), branch, {name: sha256(content) for name, content in files.items()}]
        sha = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def files(self, branch: str = "main") -> Files:
        """The files of the newest commit of a branch."""
        return self.commits[self.branches[branch]]

    def find(self, revision: str) -> str | None:
        """The hash of the commit of a branch, or of a commit."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Faults:
    """What goes wrong. A test may change this while the server runs.

    Attributes:
        cut: For each file, how many bytes of each answer are sent before the connection is cut.
        cuts_left: How many answers are cut; None for all.
        status: For the beginning of each path, the status of the answer to it.
        wrong: For each file, other bytes that are sent for it.
        hang: For each file, how many bytes are sent before the answer sets `hangs` and waits for `release`.
    """

    cut: dict[str, int] = field(default_factory=dict)
    cuts_left: int | None = None
    status: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, bytes] = field(default_factory=dict)
    hang: dict[str, int] = field(default_factory=dict)
    hangs: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Request:
    """A request that the server had: method, path without the query, and the value of its Range header."""

    method: str
    path: str
    range: str | None


class Hub(LocalServer):
    """The server. `repositories` and `faults` may be changed while it runs; `requests` is what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.uploaded: Files = {}
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        """The value of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def store_address(self) -> str:
        """Where files of LFS are, which is another host on the real hub too. The client sends no token to it."""
        return f"http://localhost:{self.server_port}"

    def add(self, name: str, files: Files, private: bool = False, gated: bool = False) -> Repository:
        """Makes a repository with one commit."""
        repository = self.repositories[name] = Repository(private, gated)
        repository.commit({".gitattributes": GIT_ATTRIBUTES, **files})
        return repository

    def asked(self, *methods: str) -> list[str]:
        """The files that were asked for, in order; every method if none is given."""
        found = []
        for request in self.requests:
            match = re.search(r"/(?:resolve|stored)/[^/]+/(.*)", request.path)
            if match and (not methods or request.method in methods):
                found.append(match[1])
        return found


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A server on a free port of this machine, until the block ends."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Writes no log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        split = urlsplit(self.path)
        path = unquote(split.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        with self.server.lock:
            self.server.requests.append(Request(self.command, path, self.headers.get("Range")))
        if self._token() not in ("", MEMBER, READER):
            return self._send(401, {"error": "Invalid username or password."}, X_Error_Message=INVALID)
        for start, status in self.server.faults.status.items():
            if path.startswith(start):
                return self._send(status, {"error": f"the test answers {status}"})
        for pattern, method in ROUTES:
            match = re.fullmatch(pattern, split.path)
            if match:
                parts = (part and unquote(part) for part in match.groups())
                method(self, *parts, query=parse_qs(split.query), body=body)
                return
        self._send(404, {"error": "no such address"})

    def _send(self, status: int, value: object = None, **headers: str) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _repository(self, name: str) -> Repository | None:
        """The repository of a name; None after an error was sent, because there is none or the token may not see it."""
        token = self._token()
        found = self.server.repositories.get(name)
        if found is None or (found.private and token != MEMBER):
            # The real hub tells nobody without a token whether a repository exists.
            status = 401 if not token else 404
            self._send(status, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return found

    def _commit(self, repository: Repository, revision: str) -> str | None:
        sha = repository.find(revision)
        if sha is None:
            self._send(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
        return sha

    def _may_write(self) -> bool:
        if self._token() == MEMBER:
            return True
        self._send(403 if self._token() else 401, {"error": "You don't have the rights"}, X_Error_Message=NO_RIGHT)
        return False

    def model_info(self, name: str, revision: str | None, query: dict[str, list[str]], body: bytes) -> None:
        repository = self._repository(name)
        sha = None if repository is None else self._commit(repository, revision or "main")
        if repository is None or sha is None:
            return
        siblings: list[dict[str, Any]] = [{"rfilename": file} for file in repository.commits[sha]]
        if "blobs" in query:
            for entry in siblings:
                content = repository.commits[sha][entry["rfilename"]]
                entry |= {"size": len(content), "blobId": git_hash(content)}
                if len(content) >= LFS_FROM:
                    entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
        self._send(200, {"_id": "1", "id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []})

    def resolve(self, name: str, revision: str, file: str, query: dict[str, list[str]], body: bytes) -> None:
        repository = self._repository(name)
        sha = None if repository is None else self._commit(repository, revision)
        if repository is None or sha is None:
            return
        if repository.gated and self._token() != MEMBER:
            return self._send(
                403 if self._token() else 401, {"error": "Access is restricted"}, X_Error_Code="GatedRepo"
            )
        if file not in repository.commits[sha]:
            return self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        content = self.server.faults.wrong.get(file, repository.commits[sha][file])
        if len(content) < LFS_FROM:
            return self._bytes(file, content, X_Repo_Commit=sha, ETag=f'"{git_hash(content)}"')
        with self.server.lock:
            self.server.uploaded[sha256(content)] = content
        self._send(
            302,
            X_Repo_Commit=sha,
            X_Linked_Etag=f'"{sha256(content)}"',
            X_Linked_Size=str(len(content)),
            Location=f"{self.server.store_address}/stored/{sha256(content)}/{file}",
        )

    def stored(self, oid: str, file: str, query: dict[str, list[str]], body: bytes) -> None:
        if self._token():
            return self._send(400, {"error": "only one way of authentication is allowed"})
        self._bytes(file, self.server.uploaded[oid], ETag=f'"{oid}"')

    def _bytes(self, file: str, content: bytes, **headers: str) -> None:
        """Sends a file, or the part of it that Range asks for, and does what the faults say."""
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        part = content[start:]
        self.send_response(206 if "Range" in self.headers else 200)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "HEAD":
            return
        faults = self.server.faults
        if file in faults.hang:
            self.wfile.write(part[: faults.hang[file]])
            self.wfile.flush()
            faults.hangs.set()
            faults.release.wait(60)
            part = part[faults.hang[file] :]
        if file in faults.cut and faults.cuts_left != 0:
            if faults.cuts_left is not None:
                faults.cuts_left -= 1
            part = part[: faults.cut[file]]
            self.close_connection = True
        self.wfile.write(part)

    def whoami(self, query: dict[str, list[str]], body: bytes) -> None:
        token = {"displayName": "test", "role": "write" if self._token() == MEMBER else "read"}
        self._send(200, {"type": "user", "name": "me", "auth": {"type": "access_token", "accessToken": token}})

    def create(self, query: dict[str, list[str]], body: bytes) -> None:
        values = json.loads(body)
        name = f"{values['organization']}/{values['name']}"
        if not self._may_write():
            return
        if name in self.server.repositories:
            address = f"{self.server.address}/{name}"
            return self._send(409, {"error": "You already created this model repo", "url": address})
        self.server.add(name, {}, private=bool(values.get("private")) or values.get("visibility") == "private")
        self._send(200, {"url": f"{self.server.address}/{name}", "name": name})

    def create_branch(self, name: str, branch: str, query: dict[str, list[str]], body: bytes) -> None:
        repository = self._repository(name)
        if repository is None or not self._may_write():
            return
        if branch in repository.branches:
            return self._send(409, {"error": "Reference already exists"})
        repository.branches[branch] = repository.branches["main"]
        self._send(200, {})

    def preupload(self, name: str, branch: str, query: dict[str, list[str]], body: bytes) -> None:
        repository = self._repository(name)
        sha = None if repository is None else self._commit(repository, branch)
        if repository is None or sha is None or not self._may_write():
            return
        files = []
        for entry in json.loads(body)["files"]:
            old = repository.commits[sha].get(entry["path"])
            answer = {
                "path": entry["path"],
                "uploadMode": "lfs" if entry["size"] >= LFS_FROM else "regular",
                "shouldIgnore": False,
            }
            if old is not None:
                answer["oid"] = sha256(old) if len(old) >= LFS_FROM else git_hash(old)
            files.append(answer)
        self._send(200, {"files": files})

    def lfs_batch(self, name: str, query: dict[str, list[str]], body: bytes) -> None:
        if not self._may_write():
            return
        objects: list[dict[str, Any]] = json.loads(body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.server.uploaded:
                entry["actions"] = {"upload": {"href": f"{self.server.address}/upload/{entry['oid']}"}}
        self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str, query: dict[str, list[str]], body: bytes) -> None:
        if sha256(body) != oid:
            return self._send(400, {"error": "another hash"})
        self.server.uploaded[oid] = body
        self._send(200)

    def validate_yaml(self, query: dict[str, list[str]], body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})

    def commit(self, name: str, branch: str, query: dict[str, list[str]], body: bytes) -> None:
        repository = self._repository(name)
        sha = None if repository is None else self._commit(repository, branch)
        if repository is None or sha is None or not self._may_write():
            return
        files = dict(repository.commits[sha])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit", sha) != sha:
                return self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if item["key"] == "lfsFile":
                files[value["path"]] = self.server.uploaded[value["oid"]]
            if item["key"] == "deletedFile":
                del files[value["path"]]
        new = repository.commit(files, branch)
        self._send(200, {"success": True, "commitOid": new, "commitUrl": f"{self.server.address}/{name}/commit/{new}"})


REPOSITORY = r"([\w.-]+/[\w.-]+)"
ROUTES: tuple[tuple[str, Any], ...] = (
    (rf"/api/models/{REPOSITORY}/preupload/(.+)", Handler.preupload),
    (rf"/api/models/{REPOSITORY}/commit/(.+)", Handler.commit),
    (rf"/api/models/{REPOSITORY}/branch/(.+)", Handler.create_branch),
    (rf"/api/models/{REPOSITORY}(?:/revision/(.+))?", Handler.model_info),
    (r"/api/whoami-v2", Handler.whoami),
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.validate_yaml),
    (rf"/{REPOSITORY}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (rf"/{REPOSITORY}/resolve/([^/]+)/(.+)", Handler.resolve),
    (r"/stored/(\w+)/(.+)", Handler.stored),
    (r"/upload/(\w+)", Handler.upload),
)
INVALID = "Invalid credentials in Authorization header"
NO_RIGHT = "You don't have the rights to create a model under this namespace"


def sha256(content: bytes) -> str:
    """The name of a file that is stored with LFS."""
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    """The name of any other file: the hash of git's blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

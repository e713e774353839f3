"""A double of the Hugging Face hub on 127.0.0.1, for tests: its protocol, and its failures.

It serves folders as repositories, of models and of data sets, each at one commit under the branch
`main`. `HubServer.fail` makes the next requests of a path fail in a chosen way.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)(.*))?"
)
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Failure:
    """How requests are to fail.

    Attributes:
        path: a regular expression searched for in the request's path.
        status: the status to answer with; 0 for a connection that is cut.
        times: how many requests fail before all is well again.
        code: the X-Error-Code header, such as GatedRepo.
        method: only requests of this method fail.
        keep: for a cut connection, how many bytes of the body are sent before.
        delay: seconds to wait before answering, which is then done as usual if `status` is 200.
    """

    path: str
    status: int
    times: int = 1_000_000
    code: str = ""
    method: str = ""
    keep: int = 0
    delay: float = 0.0


@dataclass
class Repository:
    """A folder that is served, and what the hub says about it."""

    folder: Path
    commit: str

    def files(self) -> list[Path]:
        """Return its files, sorted."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def entry(self, path: Path) -> dict[str, Any]:
        """Return how the hub's listings describe a file."""
        return {
            "type": "file",
            "path": path.relative_to(self.folder).as_posix(),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }


@dataclass
class HubServer:
    """The running server: its address, its repositories, its failures and its requests so far.

    A request is its method, its path and its headers by lower-case name.
    """

    endpoint: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def add(self, name: str, folder: Path, kind: str = "models") -> str:
        """Serve `folder` as the repository `name`, and return its commit."""
        commit = hashlib.sha1(f"{kind}/{name}".encode()).hexdigest()
        self.repositories[kind, name] = Repository(folder, commit)
        return commit

    def fail(self, path: str, status: int, **how: Any) -> None:
        """Let requests fail; see `Failure`."""
        self.failures.append(Failure(path, status, **how))

    def paths(self, method: str = "GET") -> list[str]:
        """Return the paths that were asked for with `method`."""
        return [path for each, path, _ in self.requests if each == method]

    def take_failure(self, method: str, path: str) -> Failure | None:
        """Return how this request is to fail, if it is, and count it."""
        for failure in self.failures:
            if failure.method not in ("", method) or not re.search(failure.path, path):
                continue
            if failure.times > 0:
                failure.times -= 1
                return failure
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer a HEAD request."""
        self._answer()

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._answer()

    def do_POST(self) -> None:
        """Answer a POST request."""
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.hub.requests.append((self.command, path, headers))
        failure = self.hub.take_failure(self.command, path)
        if failure is not None and failure.delay:
            threading.Event().wait(failure.delay)
        if failure is not None and failure.status not in (0, 200):
            return self._refuse(failure.status, failure.code)
        cut = failure.keep if failure is not None and failure.status == 0 else None
        if cut == 0:
            self.close_connection = True
            return None
        if match := FILE.fullmatch(path):
            return self._file(match, cut)
        if match := API.fullmatch(path):
            return self._api(match, body)
        return self._refuse(404, "RepoNotFound")

    def _repository(self, kind: str, name: str, revision: str | None) -> Repository | None:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            self._refuse(404, "RepoNotFound")
        elif revision not in (None, "main", repository.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _api(self, match: re.Match[str], body: bytes) -> None:
        kind, name, action, revision, below = match.groups()
        repository = self._repository(kind, name, revision)
        if repository is None:
            return
        entries = [repository.entry(path) for path in repository.files()]
        if action == "tree":
            self._tree(entries, below.strip("/"))
        elif action == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else []
            self._send(json.dumps([each for each in entries if each["path"] in wanted]).encode())
        else:
            siblings = [
                {"rfilename": each["path"], "size": each["size"], "blobId": each["oid"]}
                for each in entries
            ]
            about = {"id": name, "sha": repository.commit, "private": False, "gated": False}
            about |= {"tags": [], "siblings": siblings, "disabled": False, "downloads": 0}
            self._send(json.dumps(about).encode())

    def _tree(self, entries: list[dict[str, Any]], below: str) -> None:
        found = [each for each in entries if not below or each["path"].startswith(below + "/")]
        if "recursive=true" not in urlsplit(self.path).query.lower():
            depth = len(below.split("/")) if below else 0
            folders = {"/".join(each["path"].split("/")[: depth + 1]) for each in found}
            folders -= {each["path"] for each in found}
            found = [each for each in found if each["path"].count("/") == depth]
            found += [{"type": "directory", "path": each, "oid": "0"} for each in sorted(folders)]
        if below and not found:
            return self._refuse(404, "EntryNotFound")
        return self._send(json.dumps(found).encode())

    def _file(self, match: re.Match[str], cut: int | None) -> None:
        prefix, name, revision, file = match.groups()
        repository = self._repository("datasets" if prefix else "models", name, revision)
        if repository is None:
            return
        path = repository.folder / file
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        entry = repository.entry(path)
        headers = {"ETag": f'"{entry["oid"]}"', "X-Repo-Commit": repository.commit}
        self._send(path.read_bytes(), headers, cut, "application/octet-stream")

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(
        self,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
        kind: str = "application/json",
    ) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        total = len(body)
        if wanted:
            start = int(wanted[1])
            stop = min(int(wanted[2]) + 1, total) if wanted[2] else total
            body = body[start:stop]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{total}")
        else:
            self.send_response(200)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", kind)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut is not None:
            body, self.close_connection = body[:cut], True
        self.wfile.write(body)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run the double on a free port of 127.0.0.1 until the block ends."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_hub(hub: HubServer, home: Path, monkeypatch: Any) -> None:
    """Let huggingface_hub in this process talk to `hub`, with its cache under `home`."""
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    # Proxies of the environment have no business on 127.0.0.1.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    close_session()

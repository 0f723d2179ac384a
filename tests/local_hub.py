"""The part of the hub's protocol that its client needs to list and download a repository, on this machine."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """Serves folders as repositories.

    Attributes:
        repositories: `owner/name` -> folder.
        asked: Files that were downloaded, as `owner/name/file`.
        url: Where it listens.
    """

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories, self.asked, self.url = repositories, [], ""


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[LocalHub]:
    """A hub while the context lasts."""
    hub = LocalHub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path)
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if tree and (folder := self.hub.repositories.get(tree[1])):
            return self._send(json.dumps([_entry(folder, path) for path in _files(folder)]).encode())
        if info and (folder := self.hub.repositories.get(info[1])):
            siblings = [{"rfilename": str(path.relative_to(folder))} for path in _files(folder)]
            return self._send(json.dumps({"id": info[1], "sha": COMMIT, "siblings": siblings}).encode())
        if file and (folder := self.hub.repositories.get(file[1])) and (folder / file[2]).is_file():
            if self.command == "GET":
                self.hub.asked.append(f"{file[1]}/{file[2]}")
            return self._send((folder / file[2]).read_bytes())
        return self._send(b"", status=404)

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is its own."""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, path: Path) -> dict[str, object]:
    body = path.read_bytes()
    return {
        "type": "file",
        "path": str(path.relative_to(folder)),
        "size": len(body),
        "oid": hashlib.sha1(body).hexdigest(),
    }

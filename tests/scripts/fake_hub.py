"""A server that speaks those endpoints of the Hub which pushing a data set needs: shards by LFS, the card in the commit."""

import base64
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0" * 40


class FakeHub:
    """`with FakeHub() as hub: ...`; afterwards `hub.files` is what was pushed, `hub.requests` what was asked."""

    def __init__(self):
        self.files, self.stored, self.requests = {}, {}, []

    def __enter__(self):
        hub = self

        class Handler(_Handler):
            files, stored, requests = hub.files, hub.stored, hub.requests

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home):
        endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home / "home"),
                "HF_TOKEN": "hf_nobody",
                "HF_HUB_DISABLE_XET": "1"}


class _Handler(BaseHTTPRequestHandler):
    files, stored, requests = {}, {}, []        # content by path; content by SHA-256
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        self.requests.append(f"{self.command} {self.path}")

    def _answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _entry(self, name):
        content = self.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if path.endswith("/repos/create"):
            self._answer({"url": "http://127.0.0.1/datasets/me/cifar10-lt", "name": "me/cifar10-lt"})
        elif path.endswith("/validate-yaml"):
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self._answer({"files": [self._mode(file["path"]) for file in json.loads(body)["files"]]})
        elif path.endswith("/objects/batch"):
            objects = [{**entry, "actions": {"upload": {"href": f"http://{self.headers['Host']}/lfs/{entry['oid']}"}}}
                       for entry in json.loads(body)["objects"]]  # fmt: skip
            self._answer({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")
        elif "/commit/" in path:
            self._commit(body)
        elif "/paths-info/" in path:
            names = [unquote(part.partition("=")[2]) for part in body.decode().split("&")] if b"=" in body else json.loads(body)["paths"]
            self._answer([self._entry(name) for name in names if name in self.files])
        else:
            self._answer({"error": f"not spoken here: {path}"}, 404)

    def _mode(self, path):
        return {"path": path, "uploadMode": "lfs" if path.endswith(".parquet") else "regular", "shouldIgnore": False}

    def do_PUT(self):
        self.stored[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def _commit(self, body):
        for line in body.decode().splitlines():
            key, value = json.loads(line).values()
            if key == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                self.files[value["path"]] = self.stored[value["oid"]]
        self._answer({"success": True, "commitUrl": f"http://127.0.0.1/datasets/me/cifar10-lt/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if "/resolve/" in path:
            name = path.split("/resolve/")[1].partition("/")[2]
            if name in self.files:
                self._answer(self.files[name], ETag=f'"{hashlib.sha1(self.files[name]).hexdigest()}"')
            else:
                self._answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        elif "/tree/" in path:
            folder = path.split("/tree/")[1].partition("/")[2]
            inside = [name for name in self.files if name.startswith(f"{folder}/" if folder else "")]
            if folder and not inside:
                self._answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            else:
                self._answer([self._entry(name) for name in inside])
        elif path.startswith("/api/datasets/"):
            self._answer({"id": "me/cifar10-lt", "sha": COMMIT, "private": False, "siblings": [{"rfilename": name} for name in self.files]})
        else:
            self._answer({"error": f"not spoken here: {path}"}, 404)

    def do_HEAD(self):
        self.do_GET()

"""A Hub on the loopback: the endpoints that the real client uses to push and pull, and faults on request.

Written from the requests of `huggingface_hub`; it imports nothing of ours. Content that goes through LFS is streamed to the
disk, so its size does not matter.
"""

import base64
import hashlib
import json
import os
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_" + "MayWriteEverything" * 2  # as long as a real one
READ_ONLY = "hf_" + "MayOnlyReadSomething" * 2
CHUNK = 1 << 16


@dataclass
class Repo:
    """Snapshots by commit; the last is the head of the branch main, and of every branch of a model or Space."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False  # files are for those alone who were let in, which is nobody
    commits: list = field(default_factory=list)  # (id, message, {path: content or Path})
    tags: dict = field(default_factory=dict)  # name -> id

    @property
    def files(self):
        return self.commits[-1][2] if self.commits else {}

    @property
    def head(self):
        return self.commits[-1][0] if self.commits else "0" * 40

    def at(self, revision):
        """The commit of a tag, a branch or its own id, and its files; None where there is none."""
        if revision in ("", "main", "HEAD") or self.kind != "dataset":
            return self.head, self.files
        asked = self.tags.get(revision, revision)
        return next(((identity, files) for identity, _, files in self.commits if identity == asked), None)

    def commit(self, message, files):
        identity = hashlib.sha1(f"{self.kind} {self.name} {len(self.commits)}".encode()).hexdigest()
        self.commits.append((identity, message, files))
        return identity


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD path" contains `where`, after `after` of them."""

    where: str
    status: int | None = None
    times: int = 1
    headers: dict = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body
    delay: float = 0.0
    after: int = 0


class HubServer:
    """`with HubServer() as hub: ...`; `hub.files(...)` is what was pushed, `hub.requests` what was asked."""

    def __init__(self):
        self.repos, self.faults, self.requests, self.messages = {}, [], [], []
        self.lock = threading.Lock()
        self.released = threading.Event()  # ends all delays

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        self.stored = Path(self._folder.name)
        hub = self

        class Handler(_Handler):
            server_side = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def environment(self, home, token=TOKEN):
        """For a process of its own."""
        return {**os.environ, "HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home / "home"),
                "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}  # fmt: skip

    def fail(self, where, status=None, **how):
        self.faults.append(Fault(where, status, **how))

    def repo(self, name, kind="model"):
        return self.repos[kind, name]

    def files(self, name, kind="model"):
        """path -> content, of the head."""
        return {path: self.content(entry) for path, entry in self.repo(name, kind).files.items()}

    @staticmethod
    def content(entry):
        return entry.read_bytes() if isinstance(entry, Path) else entry

    def asked(self, piece):
        return [request for request in self.requests if piece in request]


class _Handler(BaseHTTPRequestHandler):
    server_side: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    # ---- answers ----

    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, message, code=None):
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.answer({"error": message}, status, **headers)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    # ---- every request ----

    def handle_request(self):
        hub, path = self.server_side, unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        with hub.lock:
            hub.requests.append(request)
            fault = next((f for f in hub.faults if f.where in request and f.times > 0), None)
            if fault and fault.after > 0:
                fault.after, fault = fault.after - 1, None
            if fault is not None:
                fault.times -= 1
        if fault is not None and self.broken(fault):
            return
        try:
            self.route(path)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def broken(self, fault):
        """Whether the fault leaves nothing to answer."""
        if fault.delay:
            self.server_side.released.wait(fault.delay)
        if fault.cut_after is not None:
            self.rfile.read(fault.cut_after)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return True
        if fault.status is None:
            return False
        self.body()
        self.answer({"error": f"fault {fault.status}"}, fault.status, **fault.headers)
        return True

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def route(self, path):
        if path == "/api/repos/create":
            return self.create()
        if path == "/api/whoami-v2":
            known = self.token() in (TOKEN, READ_ONLY)
            return self.answer({"name": "me", "type": "user"}) if known else self.refuse(401, "Invalid user token")
        if path == "/api/validate-yaml":
            return self.validate()
        if path.startswith("/lfs/"):
            return self.store(path.rpartition("/")[2])
        if path.startswith("/cdn/"):
            return self.serve((self.server_side.stored / path.rpartition("/")[2]).read_bytes())
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(path)
        if "/resolve/" in path:
            return self.resolve(path)
        for kind in ("model", "dataset", "space"):
            if path.startswith(f"/api/{kind}s/"):
                return self.api(kind, path.removeprefix(f"/api/{kind}s/").split("/"))
        return self.refuse(404, f"not spoken here: {path}")

    def api(self, kind, parts):
        name, what, revision, rest = "/".join(parts[:2]), *(*parts[2:4], "", "")[:2], "/".join(parts[4:])
        repo = self.server_side.repos.get((kind, name))
        if what in ("preupload", "commit") and not self.may_write():
            return None
        if repo is None or (repo.private and self.token() not in (TOKEN, READ_ONLY)):
            return self.refuse(404, "Repository not found", "RepoNotFound")
        if what == "preupload":
            return self.preupload(repo)
        if what == "commit":
            return self.commit(repo)
        if what == "refs":
            return self.refs(repo)
        if (there := repo.at(revision)) is None:
            return self.no_revision(revision)
        if what == "tree":
            return self.tree(there[1], rest)
        if what == "paths-info":
            return self.paths_info(there[1])
        if what in ("", "revision"):
            return self.info(repo, *there)
        return self.refuse(404, f"not spoken here: {what}")

    # ---- who ----

    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def may_write(self):
        if self.token() == TOKEN:
            return True
        self.body()
        if self.token() == READ_ONLY:
            self.refuse(403, "You don't have the rights to write here with this token")
        else:
            self.refuse(401, "Invalid credentials in Authorization header")
        return False

    # ---- push ----

    def create(self):
        if not self.may_write():
            return
        asked = json.loads(self.body())
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or 'me'}/{asked['name']}"
        if kind == "space" and asked.get("sdk") != "static":
            self.refuse(400, "a Space needs an sdk")
            return
        url = f"{self.server_side.endpoint}/{'' if kind == 'model' else f'{kind}s/'}{name}"
        if (kind, name) in self.server_side.repos:
            self.answer({"url": url, "error": "You already created this repository"}, 409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server_side.repos[kind, name] = Repo(kind, name, private)
        self.answer({"url": url, "name": name})

    def validate(self):
        content = json.loads(self.body())["content"]
        try:
            values = yaml.safe_load(content.split("---")[1])
            faults = [] if isinstance(values, dict) else ["no mapping"]
        except (IndexError, yaml.YAMLError) as error:
            faults = [str(error)]
        self.answer({"errors": [{"message": fault} for fault in faults], "warnings": []}, 400 if faults else 200)

    def preupload(self, repo):
        files = []
        for file in json.loads(self.body())["files"]:
            lfs = file["path"].endswith((".safetensors", ".parquet", ".pt", ".pth", ".png")) or file["size"] > 10**7
            entry = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if file["path"] in repo.files:
                entry["oid"] = _oid(repo.files[file["path"]])
            files.append(entry)
        self.answer({"files": files})

    def batch(self, path):
        if not self.may_write():
            return
        asked = json.loads(self.body())
        objects = []
        for entry in asked["objects"]:
            there = (self.server_side.stored / entry["oid"]).is_file()
            upload = {"upload": {"href": f"{self.server_side.endpoint}/lfs/{entry['oid']}"}}
            objects.append(entry if there else {**entry, "actions": upload})
        self.answer({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def store(self, oid):
        """Whole or not at all, piece by piece."""
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        aside = self.server_side.stored / f"{oid}.{threading.get_ident()}"
        with aside.open("wb") as file:
            while left and (piece := self.rfile.read(min(CHUNK, left))):
                digest.update(piece)
                file.write(piece)
                left -= len(piece)
        if left or digest.hexdigest() != oid:
            aside.unlink()
            self.refuse(400, "the content is not what was announced")
            return
        aside.replace(self.server_side.stored / oid)
        self.answer({})

    def commit(self, repo):
        files, message, parent = dict(repo.files), "", None
        for line in self.body().decode().splitlines():
            key, value = json.loads(line).values()
            if key == "header":
                message, parent = value["summary"], value.get("parentCommit")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server_side.stored / value["oid"]
            elif key == "deletedFile":
                files.pop(value["path"], None)
        if parent not in (None, repo.head):
            self.refuse(412, "A commit has happened since. Please refresh and try again.")
            return
        with self.server_side.lock:
            identity = repo.commit(message, files)
            self.server_side.messages.append(message)
        prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
        url = f"{self.server_side.endpoint}/{prefix}{repo.name}/commit/{identity}"
        self.answer({"success": True, "commitUrl": url, "commitOid": identity})

    # ---- pull ----

    def no_revision(self, revision):
        self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def refs(self, repo):
        named = {"branches": {"main": repo.head}, "tags": repo.tags}
        refs = {
            kind: [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": commit} for n, commit in of_kind.items()]
            for kind, of_kind in named.items()
        }
        self.answer({**refs, "converts": []})

    def info(self, repo, identity, files):
        siblings = [{"rfilename": path} for path in files]
        self.answer({"id": repo.name, "sha": identity, "private": repo.private, "siblings": siblings, "tags": []})

    def tree(self, files, folder):
        inside = {p: e for p, e in files.items() if not folder or p.startswith(f"{folder}/")}
        if folder and not inside:
            self.refuse(404, "Entry not found", "EntryNotFound")
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        depth = len(folder.split("/")) if folder else 0
        entries = {}
        for path, content in inside.items():
            parts = path.split("/")
            if recursive or len(parts) == depth + 1:
                entries[path] = _entry(path, content)
            else:
                top = "/".join(parts[: depth + 1])
                entries[top] = {"type": "directory", "path": top, "oid": "0" * 40, "size": 0}
        self.answer(list(entries.values()))

    def paths_info(self, files):
        body = self.body().decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
        self.answer([_entry(path, files[path]) for path in asked if path in files])

    def resolve(self, path):
        left, _, right = path.partition("/resolve/")
        kind = "dataset" if left.startswith("/datasets/") else "model"
        repo = self.server_side.repos.get((kind, left.removeprefix("/datasets").strip("/")))
        if repo is None or (repo.private and self.token() not in (TOKEN, READ_ONLY)):
            self.refuse(404, "Repository not found", "RepoNotFound")
            return
        if repo.gated:
            self.refuse(403, f"Access to {kind} {repo.name} is restricted", "GatedRepo")
            return
        revision, _, file = right.partition("/")
        if (there := repo.at(revision)) is None:
            self.no_revision(revision)
            return
        commit, files = there
        content = files.get(file)
        if content is None:
            self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        about = {"X_Repo_Commit": commit, "ETag": f'"{_oid(content)}"'}
        if isinstance(content, Path):  # LFS files lie on another host
            elsewhere = self.server_side.endpoint.replace("127.0.0.1", "localhost")
            linked = {"X_Linked_Size": str(content.stat().st_size), "X_Linked_Etag": about["ETag"]}
            self.answer(b"", 302, Location=f"{elsewhere}/cdn/{content.name}", **about, **linked)
            return
        self.serve(content, **about)

    def serve(self, content, **headers):
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and asked != "bytes=0-":
            first, _, last = asked.removeprefix("bytes=").partition("-")
            stop = int(last) + 1 if last else len(content)
            span = {"Content_Range": f"bytes {first}-{stop - 1}/{len(content)}"}
            self.answer(content[int(first) : stop], 206, **span, **headers)
            return
        self.answer(content, **headers)


def _oid(content):
    """As the Hub names it: SHA-256 of what went through LFS, git's hash of everything else."""
    if isinstance(content, Path):
        return content.name
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path, content):
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    entry = {"type": "file", "path": path, "size": size, "oid": _oid(content)}
    return (
        {**entry, "lfs": {"oid": content.name, "size": size, "pointerSize": 134}}
        if isinstance(content, Path)
        else entry
    )

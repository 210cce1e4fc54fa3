"""A hub on loopback, which speaks as much of the protocol as huggingface_hub needs."""

import base64
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

TOKEN = "hf_secretOfAda"


class Repository:
    """Commits of files, by branch."""

    def __init__(self, private):
        self.private, self.commits, self.branches = private, {}, {}
        self.commit("main", {})

    def commit(self, branch, changes, message=""):
        files = {**self.files(self.branches.get(branch, "")), **changes}
        key = repr((branch, len(self.commits), sorted(files.items())))
        oid = hashlib.sha1(key.encode()).hexdigest()
        self.commits[oid], self.branches[branch] = (files, message), oid
        return oid

    def files(self, revision):
        return self.commits.get(self.branches.get(revision, revision), ({}, ""))[0]

    def messages(self):
        return [message for _, message in self.commits.values()]


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.requests, self.blobs = {}, [], {}
        self.mode = "regular"
        self.failure = None  # status and message of every answer, and perhaps a code

    def downloads(self):
        return [
            path for method, path, _ in self.requests if method == "GET" and "/resolve/" in path
        ]

    def handle_error(self, request, client_address):
        """A client that closes a connection is not worth a traceback."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        pass

    def answer(self, content=b"", status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message=""):
        self.answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urlsplit(self.path)
        path = url.path
        self.server.requests.append((self.command, path, self.headers.get("authorization")))
        self.known = self.headers.get("authorization") == f"Bearer {TOKEN}"
        if self.server.failure:
            status, message, *code = self.server.failure
            return self.answer({"error": message}, status, X_Error_Code="".join(code))
        for method, pattern, action in ROUTES:
            if self.command in method and (found := re.fullmatch(pattern, path)):
                return action(self, *map(unquote, found.groups()), body=body)
        return self.refuse(404, "NoRoute", f"no route {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    # --- repositories ---------------------------------------------------------------------------

    def repository(self, name):
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.known):
            self.refuse(404 if self.known else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def commit_of(self, repository, revision):
        oid = repository.branches.get(revision, revision)
        if oid not in repository.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return oid

    def create(self, body):
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self.known:
            return self.refuse(401, "", f"Invalid token {self.headers.get('authorization')}")
        if asked["organization"] != "ada":
            return self.refuse(403, "", "You don't have the rights to create a model there")
        if name in self.server.repositories:
            return self.answer({"error": "It exists", "url": f"{self.server.url}/{name}"}, 409)
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.server.repositories[name] = Repository(private)
        return self.answer({"url": f"{self.server.url}/{name}"})

    def validate(self, body):
        licenses = re.findall(r'^license: "(.*)"$', json.loads(body)["content"], re.MULTILINE)
        if licenses and licenses[0] not in ("mit", "cc-by-4.0"):
            return self.answer({"errors": [{"message": '"license" must be one of mit'}]}, 400)
        return self.answer({"errors": [], "warnings": []})

    def branch(self, name, branch, body):
        repository = self.repository(name)
        if branch in repository.branches:
            return self.refuse(409, "", "Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        return self.answer({})

    def preupload(self, name, revision, body):
        if self.commit_of(self.repository(name), revision) is None:
            return None
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {
            name: self.server.mode if name.endswith("safetensors") else "regular" for name in names
        }
        files = [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]
        return self.answer({"files": files})

    def batch(self, name, body):
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return self.answer({"transfer": "basic", "objects": objects})

    def put(self, oid, body):
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        return self.answer()

    def commit(self, name, revision, body):
        changes, message = {}, ""
        for item in map(json.loads, body.splitlines()):
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            else:
                changes[value["path"]] = self.server.blobs[value["oid"]]
        oid = self.server.repositories[name].commit(revision, changes, message)
        url = f"{self.server.url}/{name}/commit/{oid}"
        return self.answer({"commitUrl": url, "commitOid": oid, "success": True})

    def discuss(self, name, body):
        repository = self.server.repositories[name]
        repository.branches["refs/pr/1"] = repository.branches["main"]
        return self.answer({"num": 1, "pullRequest": True})

    def discussion(self, name, number, body):
        now = "2026-01-01T00:00:00.000Z"
        return self.answer(
            {
                "title": "a pull request", "num": int(number), "status": "draft", "events": [],
                "author": {"name": "ada"}, "repo": {"name": name, "type": "model"},
                "isPullRequest": True, "createdAt": now, "diffUrl": "", "filesWithConflicts": [],
                "changes": {"base": "refs/heads/main", "mergeCommitId": None},
            }
        )  # fmt: skip

    # --- reading --------------------------------------------------------------------------------

    def info(self, name, revision="main", *, body):
        repository = self.repository(name)
        if repository is None or (oid := self.commit_of(repository, revision)) is None:
            return None
        private = repository.private
        return self.answer({"id": name, "sha": oid, "private": private, "siblings": [], "tags": []})

    def resolve(self, name, revision, path, body):
        repository = self.repository(name)
        if repository is None or (oid := self.commit_of(repository, revision)) is None:
            return None
        content = repository.files(oid).get(path)
        if content is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        return self.answer(content, ETag=f'"{_sha(content)}"', X_Repo_Commit=oid)


def _sha(content):
    return hashlib.sha1(content).hexdigest()


NAME = r"([^/]+/[^/]+)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", f"/api/models/{NAME}/branch/(.+)", Handler.branch),
    ("POST", f"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", f"/api/models/{NAME}/commit/(.+)", Handler.commit),
    ("POST", f"/api/models/{NAME}/discussions", Handler.discuss),
    ("GET", f"/api/models/{NAME}/discussions/(.+)", Handler.discussion),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/(.+)", Handler.put),
    ("GET", f"/api/models/{NAME}", Handler.info),
    ("GET", f"/api/models/{NAME}/revision/(.+)", Handler.info),
    ("GET HEAD", f"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that this process uses, with an empty cache, as Ada, who is logged in."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield server
        server.shutdown()
        thread.join()
        huggingface_hub.close_session()


@pytest.fixture
def offline(hub, monkeypatch):
    """Return a function after which this process cannot reach the hub."""

    def switch(how="HF_HUB_OFFLINE"):
        if how == "HF_HUB_OFFLINE":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            return
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")

    return switch

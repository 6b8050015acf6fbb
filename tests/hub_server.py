"""A Hugging Face hub of a few models on 127.0.0.1, as far as its client asks for files, with faults on demand."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

GOOD_TOKEN = "hf_good"


class Hub(ThreadingHTTPServer):
    """The server, started at once.

    models: id -> {revision: commit}. faults: pattern of paths -> answer (status, X-Error-Message, X-Error-Code), or a number
    of bytes after which the connection breaks. asked: "METHOD path" of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.models, self.files, self.gated = {}, {}, set()
        self.faults, self.asked = {}, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def push(self, model: str, folder: Path, revision: str = "main") -> None:
        """A new commit of a model: the folder's files."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        commit = hashlib.sha1(repr((model, sorted(files.items()))).encode()).hexdigest()
        self.files[commit] = files
        self.models.setdefault(model, {}).update({revision: commit, commit: commit})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes = b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            cut = self.fault if isinstance(self.fault, int) else None
            self.wfile.write(body[:cut])
            self.close_connection = cut is not None

    def refuse(self, status: int, message: str, code: str = "", **more):
        self.answer(status, X_Error_Message=message, **({"X_Error_Code": code} if code else {}), **more)

    def do_GET(self):
        hub, path = self.server, urlsplit(self.path).path
        hub.asked.append(f"{self.command} {path}")
        self.fault = next((fault for pattern, fault in hub.faults.items() if re.search(pattern, path)), None)
        if isinstance(self.fault, tuple):
            return self.refuse(*self.fault)
        found = re.fullmatch(r"/(api/models/)?([\w.-]+(?:/[\w.-]+)?)/(resolve|tree|revision)/([^/]+)/?(.*)", path)
        if found is None:
            return self.refuse(404, "Not found")
        api, model, kind, revision, file = found.groups()
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {GOOD_TOKEN}", "Bearer hf_stranger"):
            return self.refuse(401, "Invalid credentials in Authorization header")
        if model in hub.gated and given != f"Bearer {GOOD_TOKEN}":
            return self.refuse(403 if given else 401, f"Access to model {model} is restricted", "GatedRepo")
        if model not in hub.models:
            return self.refuse(*((404, "Repository not found", "RepoNotFound") if given else (401, "Invalid username")))
        commit = hub.models[model].get(unquote(revision))
        if commit is None:
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = hub.files[commit]
        if kind == "tree":
            listed = [{"type": "file", "oid": "0" * 40, "size": len(files[name]), "path": name} for name in files]
            return self.answer(200, json.dumps(listed).encode())
        if api:
            return self.answer(200, json.dumps({"id": model, "sha": commit}).encode())
        if file not in files:
            return self.refuse(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit)
        tag = hashlib.sha1(files[file]).hexdigest()
        return self.answer(200, files[file], ETag=f'"{tag}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

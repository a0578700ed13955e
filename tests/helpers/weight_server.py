"""A server of this machine that gives weights as the Hugging Face Hub and Google's storage do, and fails on request."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading

COMMIT = "0" * 39 + "1"


class WeightServer(http.server.ThreadingHTTPServer):
    """Serves `files`, a dict from path to bytes; `/organization/repository/resolve/...` as the Hub does.

    Attributes:
        cuts: list of ints. For each of the next GETs, after how many bytes the connection is cut.
        altered: bool. Whether bodies differ from what their headers announce, at the same length.
        status: int or `None`. An HTTP status that every request gets.
        failing: str or `None`. The end of the paths that get HTTP 500.
        requests: list of `(method, path, Range)`.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.cuts, self.altered, self.status = files, [], False, None
        self.failing, self.requests = None, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Cut connections are what the tests want."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def do_POST(self):
        """Makes repositories and takes commits; every file is a small one to it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.command, self.path, None))
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            self._json({"url": f"{self.server.url}/{name}", "name": name})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/commit/main", self.path):
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    value = item["value"]
                    self.server.files[f"{match[1]}/{value['path']}"] = base64.b64decode(value["content"])
            url = f"{self.server.url}/{match[1]}/commit/{COMMIT}"
            self._json({"commitUrl": url, "commitOid": COMMIT, "success": True})
        else:
            self.send_error(404)

    def _json(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, body):
        server = self.server
        server.requests.append((self.command, self.path, self.headers.get("Range")))
        hub = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
        content = server.files.get(f"{hub[1]}/{hub[3]}" if hub else self.path.partition("?")[0].lstrip("/"))
        status = 500 if server.failing and self.path.endswith(server.failing) else server.status
        if status or content is None:
            self.send_response(status or 404)
            if hub and content is None:
                self.send_header("X-Repo-Commit", COMMIT)
                known = any(name.startswith(f"{hub[1]}/") for name in server.files)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(content, hub, body)

    def _send(self, content, hub, body):
        server = self.server
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.headers.get("If-Range", etag) == etag else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        if hub:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Etag", etag)
            self.send_header("X-Linked-Size", str(len(content)))
        else:
            digest = base64.b64encode(hashlib.md5(content).digest()).decode()
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={digest}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        data = bytes(b ^ 1 for b in content[start:]) if server.altered else content[start:]
        if server.cuts and (cut := server.cuts.pop(0)) is not None:
            self.wfile.write(data[:cut])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data)


@contextlib.contextmanager
def serving(files):
    """Runs a `WeightServer` while the context lasts."""
    server = WeightServer(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

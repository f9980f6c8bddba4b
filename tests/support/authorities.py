"""Stand-ins for the services that testify: AWS's instance metadata service, and a timestamp authority built on
openssl."""

import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.tools import require_tools

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
IDENTITY = VECTORS / "instance-identity"
TOKEN = "AQAEAtoken=="
Answer = tuple[int, bytes, dict[str, str]]


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler, bytes], Answer]) -> Iterator[str]:
    """The address of an HTTP server that answers GET, HEAD, PUT and POST with a function of the request and its
    body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, data, headers = answer(self, body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                pass  # the client did not wait

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Metadata:
    """The metadata service: the documents that it serves, and the requests that it received."""

    document: bytes = field(default_factory=(IDENTITY / "document.json").read_bytes)
    rsa2048: bytes = field(default_factory=(IDENTITY / "genuine.p7").read_bytes)
    token_status: int = 200
    redirect: str = ""
    hold: threading.Event | None = None  # holds the answers back until it is set
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler, _: bytes) -> Answer:
        self.asked.append((request.command, request.path))
        if self.hold is not None:
            self.hold.wait(60)
        if request.path == "/latest/api/token" and request.command == "PUT":
            if not request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
                return 400, b"", {}
            return self.token_status, TOKEN.encode(), {}
        if request.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            return 401, b"", {}
        if self.redirect:
            return 302, b"", {"Location": self.redirect}
        shown = {"document": self.document, "rsa2048": self.rsa2048}
        found = shown.get(request.path.removeprefix("/latest/dynamic/instance-identity/"))
        return (404, b"", {}) if found is None else (200, found, {})


@dataclass
class Authority:
    """A timestamp authority: root, signer, and the real `openssl ts` that answers queries."""

    folder: Path
    name: str = "CN=flopsd test root"

    def __post_init__(self) -> None:
        require_tools("openssl")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.root = self.folder / "root.pem"
        self._lock = threading.Lock()
        (self.folder / "serial").write_text("01\n")
        (self.folder / "tsa.cnf").write_text(
            "[leaf]\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n"
            f"[tsa]\ndefault_tsa=one\n[one]\nserial={self.folder}/serial\nsigner_cert={self.folder}/leaf.pem\n"
            f"signer_key={self.folder}/leaf.key\nsigner_digest=sha256\ndefault_policy=1.2.3.4\n"
            "digests=sha256\naccuracy=secs:1\ness_cert_id_chain=no\ness_cert_id_alg=sha256\n"
        )
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650")
        self._openssl(*new, "-subj", f"/{self.name}", "-keyout", "root.key", "-out", "root.pem")
        self._openssl(
            *new, "-subj", "/CN=flopsd test TSA", "-keyout", "leaf.key", "-out", "leaf.pem", "-CA", "root.pem",
            "-CAkey", "root.key", "-config", "tsa.cnf", "-extensions", "leaf",
        )  # fmt: skip

    def stamp(self, query: bytes) -> bytes:
        with self._lock, tempfile.TemporaryDirectory() as folder:
            asked, stated = Path(folder) / "q", Path(folder) / "r"
            asked.write_bytes(query)
            self._openssl("ts", "-reply", "-config", "tsa.cnf", "-queryfile", str(asked), "-out", str(stated))
            return stated.read_bytes()

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> Answer:
        if request.headers["Content-Type"] != "application/timestamp-query":
            return 415, b"", {}
        return 200, self.stamp(body), {"Content-Type": "application/timestamp-reply"}

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

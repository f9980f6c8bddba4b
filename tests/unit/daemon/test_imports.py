"""Modules and threads of a metering process after a scrape: it keeps them for weeks, next to a job that needs the
memory."""

from pathlib import Path

from tests.support.process import free_port, modules_after

NOT_NEEDED = (
    "hashlib", "hmac", "secrets", "ssl", "http.client", "http.server", "socketserver", "urllib.request", "email", "html",
    "asyncio", "concurrent", "multiprocessing", "importlib.metadata", "xml", "uuid", "psutil", "yaml", "cryptography", "jinja2",
    "platform", "encodings.idna", "prometheus_client.exposition", "prometheus_client.metrics", "flopsd.core.architecture",
    "flopsd.sources.dcgm.source", "flopsd.sources.neuron.source", "flopsd.telemetry.page", "flopsd.telemetry.push",
    "flopsd.core.ledger.statement", "flopsd.sources.ownership.filtered_source",
)  # fmt: skip
CODE = """
import gc, os, signal, socket, sys, threading
from flopsd.system.process_memory import use_little_memory
use_little_memory()
from flopsd.cli.main import main
import flopsd.sources.nvml.source

def scrape_and_stop():
    pause = threading.Event()
    while True:
        try:
            with socket.socket() as client:
                client.connect(("127.0.0.1", int(sys.argv[2])))
                client.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
                page = b"".join(iter(lambda: client.recv(65536), b""))
        except OSError:
            page = b""
        if b"flopsd_observed_seconds_total{" in page and b"process_cpu_seconds_total" in page:
            print(*(f"thread:{one.name}" for one in threading.enumerate() if one.name != "web-client"), flush=True)
            print(f"collects:{gc.isenabled()}", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        pause.wait(0.02)

threading.Thread(target=scrape_and_stop, name="scraper").start()
try:
    main(["run", "--quiet", "--source", "replay", "--no-seal", "--state-dir", sys.argv[1],
          "--listen", f"127.0.0.1:{sys.argv[2]}", "--wait-for-scrape", "0"])
except SystemExit as end:
    assert not end.code
"""


def test_metering_loads_no_tls_http_library_or_other_verb_and_few_threads(tmp_path: Path) -> None:
    loaded = modules_after(CODE, str(tmp_path), str(free_port()))
    assert "flopsd.telemetry.prometheus" in loaded
    assert not {name for name in NOT_NEEDED if name in loaded}
    verbs = {name.removeprefix("flopsd.cli.") for name in loaded if name.startswith("flopsd.cli.")}
    assert verbs == {"common", "main", "parser", "run"}
    assert "collects:True" in loaded
    threads = {name.removeprefix("thread:") for name in loaded if name.startswith("thread:")}
    assert threads == {"MainThread", "source-replay", "sockets", "scraper"}

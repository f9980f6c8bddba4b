"""`make docs`: docs/metrics.md from the exporter itself, so that it names what is served and nothing else."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path

from prometheus_client.core import Metric

from flopsd.core.model import Evidence, GapReason, Pipe
from flopsd.core.policy.evaluate import Verdict
from flopsd.settings.load import load_peaks
from flopsd.telemetry.http.server import KEEP_SECONDS, MAX_CONNECTIONS, TURN_SECONDS
from flopsd.telemetry.prometheus import FactsCollector, SnapshotCollector
from flopsd.telemetry.push.states import PushState, metrics
from flopsd.telemetry.snapshot import JournalState, Snapshot

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"


def words(kind: type[Enum]) -> str:
    return ", ".join(f"`{member.value}`" for member in kind)


LABELS = {
    "gpu": "index of the device, as its driver counts",
    "uuid": "its UUID: join on this one; `NODE/neuron0` where a driver gives no name of its own",
    "pipe": f"{words(Pipe)}; `all` where the vendor counts without telling pipes apart",
    "precision": "the number format that FLOP are counted in: declared, fixed by the pipe, or `undeclared`",
    "evidence": f"how it is known, {words(Evidence)}; the first three are measured, the others only bounded",
    "reason": f"of a gap: {words(GapReason)}; of a source's error the same",
    "basis": "`executed`: what the counters saw; `guidelines`: what counts as training compute; `guidelines_cumulative`: with "
    "generated data; `architecture`: counted from the model",
    "bound": "`low`, `measured` (`computed` for `architecture`), `high`",
    "policy": "id of the policy",
    "rule": "id of the rule in it",
    "quantity": "what of the run is compared: `updates`, `cumulative`, or with the base model's compute",
    "target": "the receiver that is pushed to",
    "state": words(Verdict),
    "source": "name of the source, such as `nvml`",
    "model": "the device's name by its driver",
    "peak_row": "its row in the peak table, `unknown` without one",
    "pci_bus_id": "its PCI address",
    "driver": "version of the driver",
    "run_id": "the run",
    "node": "the node",
    "platform": "where it runs",
    "replay": "`true` where a recording is read and no hardware",
    "version": "of flopsd",
    "python": "version of Python",
    "peak_table_sha256": "digest of the peak table",
}

HEAD = """# Metrics

Made by `make docs` from the exporter; a test holds the two together.

`/metrics` speaks OpenMetrics 1.0 where the `Accept` header names it, else Prometheus's text format 0.0.4, and gzip where
`Accept-Encoding` does. A scrape renders the newest snapshot and never talks to a driver. Counters go on where they were when the
daemon is started again, and never fall. Totals are exact integers inside and the nearest 64-bit float here: at 10²⁵ FLOP that is
off by 2×10⁹ FLOP, two microseconds' work of one H100. A figure that is not known is absent, never zero; no upper bound is `+Inf`.

Rows of one name are disjoint, so `sum()` over it is meaningful. The exceptions are bounds, which have the label `bound`.

## All of them
"""

SERVING = f"""
## Serving them

| path | answers |
|---|---|
| `/metrics` | the metrics |
| `/` | a page for people, live, and without a script a still one; `/api/status` is what it is made of, as JSON |
| `/-/healthy` | 200 while the process lives |
| `/-/ready` | 200 once a device was read, 503 with `Retry-After` before |

GET and HEAD; 404 elsewhere. `--listen` (default 127.0.0.1:10188) says where, `--web-config-file` who may ask. Silent, slow and
oversized clients hold nothing that a scrape needs: {MAX_CONNECTIONS} connections, {TURN_SECONDS} s for a first request and for
any answer, {KEEP_SECONDS} s between requests, 16 KiB of headers.

## TLS, client certificates, passwords

`--web-config-file FILE` (`web_config` in flopsd.yaml) takes the
[web configuration file](https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md) that the exporters of the
Prometheus ecosystem share; `promtool check web-config FILE` checks it. Paths are relative to the file.

```yaml
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert   # or VerifyClientCertIfGiven, NoClientCert
  client_ca_file: ca.crt
  min_version: TLS13
basic_auth_users:                                # needs the extra: pip install 'flopsd[web]'
  prometheus: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG   # htpasswd -nBC 10 ''
http_server_config:
  headers:
    Strict-Transport-Security: max-age=31536000
```

The file, the certificates and the authority are read again for each handshake and each request, so a renewed certificate or a withdrawn
password counts at once. A file that became wrong admits nobody until it is mended, and the log says what is wrong. TLS is switched on or
off, and the last user taken out, by a restart only. Who guesses passwords on many connections costs no user who was let in before the way in; a
new one may be told to come again (503). A wrong file at the start is exit code 2.

Taken: `cert_file`, `key_file`, `client_ca_file`, `client_auth_type` (those three), `client_allowed_sans`, `min_version` and `max_version`
(TLS12, TLS13), `cipher_suites`, `prefer_server_cipher_suites`, `headers`, `basic_auth_users`. Refused by name, with what to do instead: inline
`cert`, `key` and `client_ca`, client certificates that nobody verifies, `curve_preferences`, TLS 1.0 and 1.1, `http2: true`, `rate_limit`.

`flopsd status --url https://USER:PASSWORD@HOST:PORT` asks such a daemon; a private authority is named by `SSL_CERT_FILE`.
"""


def families() -> list[Metric]:
    """Every family, of a run without any device: what exists does not depend on what is there."""
    empty = Snapshot("", "", "", 1, load_peaks(), (), {}, 0, None, "")
    served = replace(empty, keeping=JournalState(0, 1, 0))  # rolling seals too
    return [
        *SnapshotCollector(served, metrics((PushState("receiver", last_success_wall_ns=1),))).collect(),
        *FactsCollector(served).collect(),
    ]


def page() -> str:
    found = families()
    rows = []
    for family in found:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in labels_of(family))
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    used = dict.fromkeys(label for family in found for label in labels_of(family))
    meaning = [f"| `{label}` | {LABELS[label]} |" for label in used]
    return "\n".join(
        [HEAD, "| metric | type | labels | meaning |", "|---|---|---|---|", *rows, "", "## Labels", "",
         "| label | meaning |", "|---|---|", *meaning, SERVING]
    )  # fmt: skip


def labels_of(family: Metric) -> tuple[str, ...]:
    return tuple(getattr(family, "_labelnames", ()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

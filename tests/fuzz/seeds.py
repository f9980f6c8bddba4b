"""The seeds of fuzzing: vectors, samples, and a few inputs made here."""

import base64
import gzip
import io
import json
from collections.abc import Iterable
from contextlib import suppress

from flopsd.core.envelope import parse_envelope
from flopsd.errors import JournalDamagedError
from flopsd.journal.framing import read_lines
from tests.support.architectures import PUBLISHED
from tests.support.authorities import IDENTITY
from tests.support.exporter import gpu
from tests.support.story import VECTORS

SAMPLES = VECTORS.parent / "samples"
RUN, NODE = "run-1", "node-0"


def files(*patterns: str) -> list[bytes]:
    return [path.read_bytes() for pattern in patterns for path in sorted(VECTORS.glob(pattern))]


def bodies() -> list[bytes]:
    """The records of every vector, as bodies."""
    found = []
    for data in files("valid/*/ledger.journal.jsonl"):
        with suppress(JournalDamagedError):
            found.append(b"\n".join(line.body for line in read_lines(io.BytesIO(data))))
    return found


def payloads(*patterns: str) -> list[bytes]:
    return [parse_envelope(data).payload for data in files(*patterns)]


def logs() -> Iterable[bytes]:
    line = (
        f"flopsd-checkpoint run={RUN} node={NODE} incarnation=1 records=7 bytes=4711 head={'5e' * 32} low_flop=1 "
        "measured_flop=unknown high_flop=39 coverage=1"
    )
    event = {"timestamp": 1764079200000, "message": line, "ingestionTime": 1764079200123}
    text = f"2026-11-25T14:00:00.000Z step 10\n2026-11-25 14:00:01,5 {line}\n"
    yield from (text.encode(), text.encode("utf-16"), gzip.compress(text.encode(), 1))
    yield json.dumps({"log": f"{line}\n", "stream": "stdout", "time": "2026-11-25T14:00:00.5Z"}).encode() + b"\n"
    yield json.dumps({"events": [event, event], "nextToken": "x"}).encode()
    yield json.dumps([event]).encode()
    yield json.dumps({"messageType": "DATA_MESSAGE", "logEvents": [{"id": "1", **event}]}).encode()


def conversations() -> Iterable[bytes]:
    hello = {"flopsd": 1, "kind": "hello", "session": "5e" * 16, "client": "0.1.0", "pid": 7}
    work = {"flopsd": 1, "kind": "work", "work": {"train": {"tokens": 99, "sequences": 3, "square_pairs": 5000, "steps": 1},
            "generate": {"tokens": 7, "forward_passes": 7}}}  # fmt: skip
    lora = {"r": 8, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]}
    how = {"method": "lora", "lora": lora, "recomputation": "full", "attention": "sdpa", "precision": {"bf16": 1000000}}
    for config, _, _ in PUBLISHED.values():
        facts = {"model_config": config, "parameters_total": 10**6, "packing": False, "window": 4, "rank": 0, **how}
        lines = [hello, {"flopsd": 1, "kind": "declare", "facts": facts}, {"flopsd": 1, "kind": "phase", "phase": "train"},
                 work, {"flopsd": 1, "kind": "bye"}]  # fmt: skip
        yield "\n".join(map(json.dumps, lines)).encode()


def pages() -> Iterable[bytes]:
    yield from (path.read_bytes() for path in sorted(SAMPLES.glob("*.prom")))
    fields = {"DCGM_FI_DEV_SM_CLOCK": 1230, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.5, "DCGM_FI_DEV_GPU_UTIL": 97,
              "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 10**6, "DCGM_FI_PROF_PIPE_FP32_ACTIVE": 0.1}  # fmt: skip
    for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"):
        pages = [
            gpu({**fields, "DCGM_FI_DEV_FB_USED": at, "DCGM_FI_DEV_GPU_TEMP": 50 + at}, model=name) for at in range(3)
        ]
        yield "\f".join(pages).encode()


def tokens() -> list[bytes]:
    return [path.read_bytes() for path in sorted((VECTORS / "rfc3161").rglob("*.tsr"))]


def gpu_report() -> bytes:
    return bytes.fromhex((VECTORS / "nvidia" / "hopperAttestationReport.txt").read_text())


def identities() -> Iterable[bytes]:
    """The messages of AWS's vectors, in DER and as text."""
    for name in ("genuine.p7", "forged.p7"):
        text = (IDENTITY / name).read_text()
        yield from (base64.b64decode("".join(text.splitlines()[1:-1])), text.encode())


def gpu_reports() -> Iterable[bytes]:
    yield (VECTORS / "nvidia" / "hopperCertChain.txt").read_bytes().rstrip() + b"\n\n" + gpu_report()


def requests() -> Iterable[bytes]:
    yield b"GET /metrics HTTP/1.1\r\nHost: localhost:9400\r\nAccept-Encoding: gzip\r\n\r\nHEAD / HTTP/1.0\r\n\r\n"
    yield (
        b"\r\nPOST /x?y HTTP/1.1\r\nHost: [::1]:1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\nabc"
    )

"""A kubelet's pod-resources service on a unix socket: real gRPC, with answers set by the test.

The protobuf here includes fields of the kubelet's API that flopsd does not read, as a newer kubelet sends them.
"""

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.tools import missing

Pods = Mapping[tuple[str, str], Mapping[str, Mapping[str, tuple[str, ...]]]]  # pod -> container -> resource -> ids


def require(module: str) -> Any:
    """The imported module. If it is missing the test is skipped, or fails where CI requires all tools."""
    try:
        return importlib.import_module(module)
    except ImportError:
        missing(f"the Python package {module} is not installed: pip install 'flopsd[dev]'")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _part(number: int, content: bytes | str) -> bytes:
    """One length-delimited field of the protobuf wire format."""
    raw = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def answer(pods: Pods, claims: Mapping[tuple[str, str], str] | None = None) -> bytes:
    """A ListPodResourcesResponse, written by hand from api.proto so that it shares no code with flopsd. Each device
    has a NUMA topology (field 3), and each container cpu ids (field 3, packed) and memory (field 4)."""
    out = b""
    for (namespace, name), containers in pods.items():
        pod = _part(1, name) + _part(2, namespace)
        for container, resources in containers.items():
            body = _part(1, container)
            for resource, ids in resources.items():
                topology = _part(1, _varint(1 << 3) + _varint(0))
                devices = _part(1, resource) + b"".join(_part(2, i) for i in ids) + _part(3, topology)
                body += _part(2, devices)
            body += _part(3, b"\x00\x01\x02") + _part(4, _part(1, "hugepages-2Mi") + _varint(2 << 3) + _varint(1 << 30))
            if claims and (namespace, name) in claims:
                body += _part(5, _part(2, claims[(namespace, name)]) + _part(3, namespace))
            pod += _part(3, body)
        out += _part(1, pod)
    return out


@dataclass
class Kubelet:
    """The service's answers. `hold` makes it hang until it is set."""

    path: Path
    reply: bytes = b""
    hold: threading.Event | None = None
    asked: int = 0
    fail: Callable[[Any], None] | None = None
    handlers: dict[str, Any] = field(default_factory=dict)

    def list(self, request: bytes, context: Any) -> bytes:
        assert request == b""
        self.asked += 1
        if self.hold is not None:
            self.hold.wait(60)
        if self.fail is not None:
            self.fail(context)
        return self.reply


@contextmanager
def kubelet(path: Path) -> Iterator[Kubelet]:
    grpc = require("grpc")
    service = Kubelet(path)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    handler = grpc.unary_unary_rpc_method_handler(service.list)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": handler}),))
    assert server.add_insecure_port(f"unix:{path}") == 1
    server.start()
    try:
        yield service
    finally:
        if service.hold is not None:
            service.hold.set()
        server.stop(0).wait()

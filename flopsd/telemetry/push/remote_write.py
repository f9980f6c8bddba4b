"""Prometheus remote write 1.0: snappy around one protobuf message. Needs the extra `push`, and `kms` for SigV4.

Source: prometheus/prompb types.proto and remote.proto. Only the fields that are needed are declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.errors import PushError
from flopsd.settings.push_targets import Target
from flopsd.telemetry.push.http import Http, Signer
from flopsd.telemetry.push.pages import Parsed, Zeros, key_of
from flopsd.telemetry.push.queue import KEPT_PAGES

_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_DOUBLE, _INT64, _STRING, _MESSAGE, _OPTIONAL, _REPEATED = 1, 3, 9, 11, 1, 3  # of descriptor.proto
_NS_PER_MS = 1_000_000
# message -> (field, number, label, type or message)
_MESSAGES: dict[str, tuple[tuple[str, int, int, int | str], ...]] = {
    "WriteRequest": (("timeseries", 1, _REPEATED, "TimeSeries"),),
    "TimeSeries": (("labels", 1, _REPEATED, "Label"), ("samples", 2, _REPEATED, "Sample")),
    "Label": (("name", 1, _OPTIONAL, _STRING), ("value", 2, _OPTIONAL, _STRING)),
    "Sample": (("value", 1, _OPTIONAL, _DOUBLE), ("timestamp", 2, _OPTIONAL, _INT64)),
}


class RemoteWrite:
    """Samples carry their time, so that what a receiver missed reaches it later."""

    keeps = KEPT_PAGES

    def __init__(self, target: Target, http: Http) -> None:
        """Raises ImportError without the extra."""
        from cramjam import snappy

        self._target, self._http, self._zeros = target, http, Zeros()
        self._request, self._compress = write_request(), snappy.compress_raw

    def encode(self, parsed: Parsed) -> bytes:
        request, zeros = self._request(), self._zeros.of(parsed)
        added = {
            "job": self._target.job, "instance": parsed.instance, "run_id": parsed.run_id, "node": parsed.node
        }  # fmt: skip
        at_ms = parsed.wall_ns // _NS_PER_MS
        for family in parsed.families:
            for sample in family.samples:
                series = request.timeseries.add()
                labels = {**sample.labels, **added, "__name__": sample.name}
                for name in sorted(labels):  # the protocol asks for them in this order, and for none that is empty
                    if labels[name]:
                        series.labels.add(name=name, value=labels[name])
                if key_of(sample.name, sample.labels) in zeros:
                    series.samples.add(value=0.0, timestamp=at_ms - 1)
                series.samples.add(value=sample.value, timestamp=at_ms)
        return bytes(self._compress(request.SerializeToString()))

    def send(self, body: bytes, seconds: float) -> None:
        """Raises PushError."""
        self._http.request("POST", self._target.url, _HEADERS, body, seconds)


def write_request() -> Any:
    """The protobuf class of a request, in a pool of its own. Raises ImportError without protobuf."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="prometheus", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            added = message.field.add(name=field, number=number, label=label)
            added.type = kind if isinstance(kind, int) else _MESSAGE
            if isinstance(kind, str):
                added.type_name = f".prometheus.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


def signer(target: Target) -> Signer | None:
    """AWS Signature 4 for the service `aps`, with the credentials of botocore's own chain; None: not asked for.

    Raises ImportError without botocore.
    """
    if target.sigv4 is None:
        return None
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.session import Session

    session, region = Session(), target.sigv4

    def sign(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        credentials = session.get_credentials()  # kept by the session, and renewed before they end
        if credentials is None:
            raise PushError(
                "no AWS credentials are here to sign with",
                reason="not_possible",
                hint="network isolation leaves a training job none",
            )
        request = AWSRequest(method, url, dict(headers), body)
        SigV4Auth(credentials, "aps", region).add_auth(request)
        return dict(request.headers)

    return sign

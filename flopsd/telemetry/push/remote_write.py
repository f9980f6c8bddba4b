"""Prometheus remote write 1.0: snappy around one protobuf message. Needs the extra `push`, and `kms` for SigV4.

Source: prometheus/prompb types.proto and remote.proto. Only the fields in use are declared.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, ClassVar

from flopsd.errors import PushError
from flopsd.settings.push_targets import Target
from flopsd.system.protobuf import DOUBLE, INT64, OPTIONAL, REPEATED, STRING, Messages, message_classes
from flopsd.telemetry.push.http import Http, Signer
from flopsd.telemetry.push.pages import Parsed, key_of
from flopsd.telemetry.push.queue import TimedSender

MESSAGES: Messages = {
    "WriteRequest": (("timeseries", 1, REPEATED, "TimeSeries"),),
    "TimeSeries": (("labels", 1, REPEATED, "Label"), ("samples", 2, REPEATED, "Sample")),
    "Label": (("name", 1, OPTIONAL, STRING), ("value", 2, OPTIONAL, STRING)),
    "Sample": (("value", 1, OPTIONAL, DOUBLE), ("timestamp", 2, OPTIONAL, INT64)),
}


(STALE,) = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))  # the NaN that ends a series in this protocol


class RemoteWrite(TimedSender):
    headers: ClassVar = {
        "Content-Type": "application/x-protobuf",
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }

    def __init__(self, target: Target, http: Http) -> None:
        """Raises ImportError without the extra."""
        from cramjam import snappy

        super().__init__(target, http)
        self._request = message_classes("prometheus", MESSAGES)["WriteRequest"]
        self._compress = snappy.compress_raw

    def encode(self, parsed: Parsed) -> bytes:
        request, (zeros, ended) = self._request(), self._series.changes(parsed)
        added = {"job": self._target.job, **parsed.grouping_key}
        at_ms = parsed.wall_ns // 1_000_000
        for family in parsed.families:
            for sample in family.samples:
                series = _series(request, {**sample.labels, **added, "__name__": sample.name})
                if key_of(sample.name, sample.labels) in zeros:
                    series.samples.add(value=0.0, timestamp=at_ms - 1)
                series.samples.add(value=sample.value, timestamp=at_ms)
        for name, of_series in ended:
            _series(request, {**dict(of_series), **added, "__name__": name}).samples.add(value=STALE, timestamp=at_ms)
        return bytes(self._compress(request.SerializeToString()))


def _series(request: Any, labels: Mapping[str, str]) -> Any:
    series = request.timeseries.add()
    for name in sorted(labels):  # the protocol requires sorted labels, and no empty ones
        if labels[name]:
            series.labels.add(name=name, value=labels[name])
    return series


def signer(target: Target) -> Signer | None:
    """A signer by AWS Signature 4 for the service `aps`, with the credentials of botocore's own chain; None if the
    target does not ask for it. Raises ImportError without botocore."""
    if target.sigv4 is None:
        return None
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.session import Session

    session, region = Session(), target.sigv4

    def sign(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        credentials = session.get_credentials()  # the session caches them and renews them in time
        if credentials is None:
            raise PushError(
                "no AWS credentials to sign with were found",
                reason="not_possible",
                hint="a training job with network isolation has none",
            )
        request = AWSRequest(method, url, dict(headers), body)
        SigV4Auth(credentials, "aps", region).add_auth(request)
        return dict(request.headers)

    return sign

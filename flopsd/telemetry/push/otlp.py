"""OTLP over HTTP: the OpenTelemetry project's own messages, made from a page. Needs the extra `push`.

Counters are cumulative monotonic sums with an unknown start time, so that a daemon start does not look like a reset.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any, ClassVar

from flopsd import __version__
from flopsd.settings.push_targets import Target
from flopsd.telemetry.push.http import Http
from flopsd.telemetry.push.pages import Parsed, key_of
from flopsd.telemetry.push.queue import TimedSender


class Otlp(TimedSender):
    headers: ClassVar = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}

    def __init__(self, target: Target, http: Http) -> None:
        """Raises ImportError without the extra."""
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
        from opentelemetry.proto.metrics.v1 import metrics_pb2

        super().__init__(target, http)
        self._request = metrics_service_pb2.ExportMetricsServiceRequest
        self._cumulative = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
        self._ended = metrics_pb2.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK

    def encode(self, parsed: Parsed) -> bytes:
        request, (zeros, ended) = self._request(), self._series.changes(parsed)
        resource = request.resource_metrics.add()
        # Prometheus makes `job` and `instance` of these two; other receivers do not.
        _label(resource.resource, {"service.name": self._target.job, "service.instance.id": parsed.instance})
        scope = resource.scope_metrics.add()
        scope.scope.name, scope.scope.version = "flopsd", __version__
        for family in parsed.families:
            # With `_total`: Prometheus then adds no ending, and receivers that never add one get the same name.
            name = f"{family.name}_total" if family.type == "counter" else family.name
            over = [dict(labels) for of, labels in ended if of == name]
            if not family.samples and not over:
                continue
            metric = scope.metrics.add(name=name, description=family.documentation)
            points = metric.gauge.data_points
            if family.type == "counter":
                metric.sum.aggregation_temporality, metric.sum.is_monotonic = self._cumulative, True
                points = metric.sum.data_points
            added = {"run_id": parsed.run_id, "node": parsed.node, "job": self._target.job}
            for labels in over:
                _label(points.add(time_unix_nano=parsed.wall_ns, flags=self._ended), {**labels, **added})
            for sample in family.samples:
                labels = {**sample.labels, **added}
                if key_of(sample.name, sample.labels) in zeros:
                    _label(points.add(time_unix_nano=parsed.wall_ns - 1_000_000, as_double=0.0), labels)
                _label(points.add(time_unix_nano=parsed.wall_ns, as_double=sample.value), labels)
        return gzip.compress(request.SerializeToString(), 6)


def _label(message: Any, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        message.attributes.add(key=key).value.string_value = value

"""A bare loop to compare flopsd's cost with: once a second it reads each GPU through NVML, and shows a page of the
values.

It makes the same driver calls as flopsd and keeps the results: cycles of each pipe since its start, SM clock, energy
and utilisation. It has no journal, does not check its readings, and stops at the first error.
"""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pynvml

# Counters of SM cycles since boot: elapsed cycles, and those in which a pipe was active; then the same as percentages.
CYCLES = {248: "elapsed", 250: "tensor", 251: "dmma", 252: "hmma", 253: "imma", 254: "dfma", 258: "fp64", 259: "fp32",
          260: "fp16"}  # fmt: skip
PERCENT = {5: "tensor", 6: "dfma", 7: "hmma", 8: "dmma", 9: "imma", 11: "fp64", 12: "fp32", 13: "fp16"}


class Gpu:
    def __init__(self, index: int) -> None:
        self.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self.labels = f'{{gpu="{index}",uuid="{pynvml.nvmlDeviceGetUUID(self.handle)}"}}'
        self.samples = [pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()]
        pynvml.nvmlGpmSampleGet(self.handle, self.samples[0])
        self.request = pynvml.c_nvmlGpmMetricsGet_t()
        self.request.version, self.request.numMetrics = 1, len(CYCLES) + len(PERCENT)
        for at, metric in enumerate((*CYCLES, *PERCENT)):
            self.request.metrics[at].metricId = metric
        self.begin: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        pynvml.nvmlGpmSampleGet(self.handle, self.samples[1])
        self.request.sample1, self.request.sample2 = self.samples
        pynvml.nvmlGpmMetricsGet(self.request)
        self.samples.reverse()
        values = [self.request.metrics[at].value for at in range(self.request.numMetrics)]
        cycles = dict(zip(CYCLES.values(), values, strict=False))
        self.begin = self.begin or cycles
        read = {f'gpu_cycles_total{{pipe="{pipe}",': value - self.begin[pipe] for pipe, value in cycles.items()}
        percentages = zip(PERCENT.values(), values[len(CYCLES) :], strict=True)
        read.update({f'gpu_active_percent{{pipe="{pipe}",': value for pipe, value in percentages})
        read["gpu_sm_mhz{"] = pynvml.nvmlDeviceGetClockInfo(self.handle, pynvml.NVML_CLOCK_SM)
        read["gpu_joules_total{"] = pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000
        read["gpu_utilization_percent{"] = pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu
        return read


def main(port: int) -> None:
    pynvml.nvmlInit()
    gpus = [Gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    newest: list[dict[str, float]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            lines = (f"{name}{gpu.labels[1:]} {value}\n" for gpu, read in zip(gpus, newest, strict=False)
                     for name, value in read.items())  # fmt: skip
            body = "".join(lines).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_: Any) -> None:
            pass

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever, daemon=True).start()
    due = time.monotonic()
    while True:
        newest[:] = [gpu.read() for gpu in gpus]
        due += 1
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""A dcgm-exporter that shows whatever page a test puts there, behind a real HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tests.support.authorities import Answer, serving

A100_UID = "GPU-5a4d0000-0000-4000-8000-000000000000"  # the first GPU of the NVML stand-in: one and the same device
TENSOR, CLOCK, UTIL = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_GPU_UTIL"
HMMA, IMMA, DFMA = (f"DCGM_FI_PROF_PIPE_TENSOR_{kind}_ACTIVE" for kind in ("HMMA", "IMMA", "DFMA"))
FP64, FP32, FP16 = (f"DCGM_FI_PROF_PIPE_{kind}_ACTIVE" for kind in ("FP64", "FP32", "FP16"))
ENERGY, POWER, LIMIT = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_POWER_MGMT_LIMIT"
ELAPSED, MMA = "DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL", "DCGM_FI_PROF_MMA_CYCLES_ACTIVE_TOTAL"


def gpu(
    values: Mapping[str, object],
    uid: str = A100_UID,
    model: str = "NVIDIA A100-SXM4-80GB",
    index: int = 0,
    more: str = "",
) -> str:
    """The lines of one GPU, with HELP and TYPE as the exporter writes them; `more` are further labels."""
    labels = (
        f'gpu="{index}",UUID="{uid}",pci_bus_id="00000000:1A:00.0",device="nvidia{index}",modelName="{model}",'
        f'Hostname="node-7",DCGM_FI_DRIVER_VERSION="595.91.07"{more}'
    )
    lines: list[str] = []
    for name, value in values.items():
        kind = "counter" if "TOTAL" in name else "gauge"
        lines += [f"# HELP {name} Some help, in words.", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"]
    return "\n".join(lines) + "\n"


class Exporter:
    """What it answers now: a page, or an HTTP status."""

    def __init__(self) -> None:
        self.page: Callable[[], str] = str
        self.status = 200
        self._serving = serving(self._answer)
        self.url = f"{self._serving.__enter__()}/metrics"

    def _answer(self, *_: object) -> Answer:
        return self.status, self.page().encode(), {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}

    def shows(self, text: str) -> None:
        self.page = lambda: text

    def stop(self) -> None:
        self._serving.__exit__(None, None, None)


@contextmanager
def exporting(text: str) -> Iterator[Exporter]:
    exporter = Exporter()
    exporter.shows(text)
    try:
        yield exporter
    finally:
        exporter.stop()

"""A page of dcgm-exporter as values by GPU and DCGM field. Pure.

Field ids, names and blank values: NVIDIA/DCGM dcgm_fields.h, dcgm_fields.py and dcgm_structs.h, 4.6 and 4.7.
Labels: NVIDIA/dcgm-exporter, whose spelling drifts: `UUID` or `uuid`, `Hostname` or `hostname`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from typing import Any

from flopsd.core.dataclass import dataclass
from flopsd.system.part_of_package import part_of


class Field(Enum):
    """The fields that are read, by their old name, and by that of DCGM 4.6 if it differs."""

    SM_CLOCK = ("DEV_SM_CLOCK",)
    MAX_SM_CLOCK = ("DEV_MAX_SM_CLOCK",)
    POWER_USAGE = ("DEV_POWER_USAGE", "DEV_BOARD_POWER_WATTS")
    ENERGY = ("DEV_TOTAL_ENERGY_CONSUMPTION",)
    POWER_LIMIT = ("DEV_POWER_MGMT_LIMIT", "DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS")
    GPU_UTIL = ("DEV_GPU_UTIL",)
    GR_ENGINE = ("PROF_GR_ENGINE_ACTIVE", "PROF_GR_ENGINE_UTIL_RATIO")
    SM_ACTIVE = ("PROF_SM_ACTIVE", "PROF_SM_UTIL_RATIO")
    TENSOR = ("PROF_PIPE_TENSOR_ACTIVE", "PROF_TENSOR_UTIL_RATIO")  # 1004
    FP64 = ("PROF_PIPE_FP64_ACTIVE", "PROF_FP64_UTIL_RATIO")  # 1006 to 1008
    FP32 = ("PROF_PIPE_FP32_ACTIVE", "PROF_FP32_UTIL_RATIO")
    FP16 = ("PROF_PIPE_FP16_ACTIVE", "PROF_FP16_UTIL_RATIO")
    IMMA = ("PROF_PIPE_TENSOR_IMMA_ACTIVE", "PROF_IMMA_UTIL_RATIO")  # 1013 to 1015
    HMMA = ("PROF_PIPE_TENSOR_HMMA_ACTIVE", "PROF_HMMA_UTIL_RATIO")
    DFMA = ("PROF_PIPE_TENSOR_DFMA_ACTIVE", "PROF_DFMA_UTIL_RATIO")
    CYCLES_ELAPSED = ("PROF_SM_CYCLES_ELAPSED_TOTAL",)  # 1084 to 1096
    CYCLES_MMA = ("PROF_MMA_CYCLES_ACTIVE_TOTAL",)
    CYCLES_DMMA = ("PROF_DMMA_CYCLES_ACTIVE_TOTAL",)
    CYCLES_HMMA = ("PROF_HMMA_CYCLES_ACTIVE_TOTAL",)
    CYCLES_IMMA = ("PROF_IMMA_CYCLES_ACTIVE_TOTAL",)
    CYCLES_DFMA = ("PROF_DFMA_CYCLES_ACTIVE_TOTAL",)
    CYCLES_FP64 = ("PROF_FP64_CYCLES_ACTIVE_TOTAL",)
    CYCLES_FP32 = ("PROF_FP32_CYCLES_ACTIVE_TOTAL",)
    CYCLES_FP16 = ("PROF_FP16_CYCLES_ACTIVE_TOTAL",)
    GPU_UTIL_RATIO = ("DEV_GPU_UTIL_RATIO",)  # in DCGM 4.6 GPU_UTIL in percent; in 4.7 a ratio of its own


PREFIX = "DCGM_FI_"
FIELD_OF_NAME: Mapping[str, Field] = {PREFIX + name: known for known in Field for name in known.value}
# Running counters are whole numbers, and their values beyond the 32-bit and floating-point blanks are real.
COUNTERS = frozenset({Field.ENERGY, *(known for known in Field if known.name.startswith("CYCLES_"))})

# Every blank value is followed by those for not found, not supported, not permitted. Some were seen times 100.
_INT32_BLANK, _INT64_BLANK, _FP64_BLANK = 0x7FFFFFF0, 9223372036854775792, 140737488355328
_BLANK_WORDS = ("blank", "not found", "not supported", "not permitted")
NOT_PERMITTED = _BLANK_WORDS[3]
_GPU_UUID = re.compile("GPU-[0-9A-F-]{36}", re.IGNORECASE)
_LONGEST = 1000  # characters; a device with more of them is refused, and all others with it
CONTRADICTORY = "given twice, with different values"


@dataclass(slots=True)
class GpuPage:
    """One GPU on one page. `blanks`: known fields without a usable value, and why."""

    uid: str
    labels: Mapping[str, str]
    values: dict[Field, float] = field(default_factory=dict)
    blanks: dict[Field, str] = field(default_factory=dict)
    slices: dict[str, str] = field(default_factory=dict)  # MIG: GPU instance -> profile
    users: set[str] = field(default_factory=set)  # namespace/pod/container that the page names with it
    had_tensor: bool = False  # whether an earlier page had tensor activity
    shown: dict[str, frozenset[float | None]] = field(default_factory=dict)  # all of its series, for comparison

    def label(self, *names: str) -> str | None:
        """Return the first of these labels that is there, not empty, and no longer than a fact of a GPU can be."""
        return next((self.labels[name] for name in names if 0 < len(self.labels.get(name, "")) <= _LONGEST), None)

    def changed_from(self, earlier: GpuPage) -> set[str]:
        """Return the series whose values differ from those on an earlier page."""
        names = self.shown.keys() | earlier.shown.keys()
        return {name for name in names if self.shown.get(name) != earlier.shown.get(name)}

    def utilization_percent(self) -> float | None:
        """Return the GPU utilisation. `..._UTIL_RATIO` up to 1 is taken as a ratio: the larger of both meanings."""
        if Field.GPU_UTIL in self.values:
            return self.values[Field.GPU_UTIL]
        ratio = self.values.get(Field.GPU_UTIL_RATIO)
        return ratio if ratio is None or ratio > 1 else ratio * 100


def why_blank(known: Field, value: float) -> str | None:
    """Return why a value is blank, or None if it is not. Out of range is not blank."""
    if math.isnan(value) or math.isinf(value):
        return "not a number"
    if known in COUNTERS:
        return _BLANK_WORDS[0] if value >= float(_INT64_BLANK) or value < 0 else None
    if value < _INT32_BLANK:
        return None
    codes = ((value - base) / times for base, times in ((_INT32_BLANK, 1), (_FP64_BLANK, 1), (_FP64_BLANK * 100, 100)))
    return next((_BLANK_WORDS[int(code)] for code in codes if code in range(len(_BLANK_WORDS))), _BLANK_WORDS[0])


def parse_page(text: str) -> dict[str, GpuPage]:
    """Return all GPUs of a page by UUID; empty if it is no page of dcgm-exporter. A bad line is skipped."""
    text_string_to_metric_families = part_of("prometheus_client", "parser").text_string_to_metric_families
    found: dict[str, GpuPage] = {}
    series: dict[str, dict[str, set[float | None]]] = {}
    for line in text.split("\n"):  # no other character ends a line: a label may hold U+2028
        if not line.startswith(PREFIX):
            continue  # skip comments too: without them the parser renames no counter
        try:
            samples = [sample for family in text_string_to_metric_families(line) for sample in family.samples]
        except (ValueError, IndexError, KeyError):
            continue
        for sample in samples:
            uid = sample.labels.get("UUID") or sample.labels.get("uuid")
            if uid:
                uid = f"GPU-{uid[4:].lower()}" if _GPU_UUID.fullmatch(uid) else uid  # as NVML spells it
                page = found.setdefault(uid, GpuPage(uid, dict(sample.labels)))
                _take(page, series.setdefault(uid, {}), sample.name, sample.labels, float(sample.value))
    for uid, page in found.items():
        page.shown = {name: frozenset(values) for name, values in series[uid].items()}
        for name, values in page.shown.items():
            known = FIELD_OF_NAME.get(name)
            if known is not None and len(values) > 1:
                page.values.pop(known, None)
                page.blanks[known] = CONTRADICTORY
    return found


def _take(
    page: GpuPage, series: dict[str, set[float | None]], name: str, labels: Mapping[str, Any], value: float
) -> None:
    """Add one sample. Several containers on one GPU give several series of the same value, which count as one."""
    user = "/".join(str(labels[part]) for part in ("namespace", "pod", "container") if labels.get(part))
    if user:
        page.users.add(user)
    instance = labels.get("GPU_I_ID")
    if instance:
        page.slices[str(instance)] = str(labels.get("GPU_I_PROFILE") or "unknown profile")
    series.setdefault(f"{name}/{instance}" if instance else name, set()).add(None if math.isnan(value) else value)
    known = FIELD_OF_NAME.get(name)
    if known is None or instance:
        return
    why = why_blank(known, value)
    if why is None:
        page.values[known] = value
    else:
        page.blanks[known] = why

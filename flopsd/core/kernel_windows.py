"""Kernels that a training process saw in short sampled windows, by class. Pure.

This is kept and shown as evidence only: it is observed by software of the party that trains, and changes no figure
(docs/adr/0034).
"""

from __future__ import annotations

from collections.abc import Mapping

# The purpose of a kernel as its name shows it. A closed set, with two counters each.
CLASSES: Mapping[str, str] = {
    "matrix_bf16": "matrix products in BF16",
    "matrix_fp16": "matrix products in FP16",
    "matrix_tf32": "matrix products in TF32",
    "matrix_fp8": "matrix products in FP8",
    "matrix_fp4": "matrix products in FP4",
    "matrix_int8": "matrix products in INT8",
    "matrix_fp64": "matrix products in FP64, on tensor cores",
    "matrix_plain": "matrix products without tensor cores",
    "matrix_unnamed": "matrix products whose names state no format",
    "attention": "fused attention",
    "convolution": "convolution",
    "vector": "elementwise, normalization, reduction, indexing",
    "copy": "copies, filling memory",
    "communication": "communication",
    "other": "names that show no class",
}
WINDOWS, WINDOW_NS = "kernel_windows", "kernel_window_ns"
COST_NS = "kernel_window_cost_ns"  # process time spent on starting, ending and reading windows
SKIPPED = "kernel_windows_skipped"
REFUSED = "kernel_windows_refused"  # messages with impossible windows, counted by the daemon, not the process
NS_OF = {name: f"kernel_ns_{name}" for name in CLASSES}
LAUNCHES_OF = {name: f"kernel_launches_{name}" for name in CLASSES}
OBSERVED = frozenset({WINDOWS, WINDOW_NS, COST_NS, SKIPPED, *NS_OF.values(), *LAUNCHES_OF.values()})
KERNEL_COUNTERS = (
    *(WINDOWS, WINDOW_NS, COST_NS, SKIPPED, REFUSED),
    *(name for one in CLASSES for name in (NS_OF[one], LAUNCHES_OF[one])),
)
_NAMES = frozenset(KERNEL_COUNTERS)
AT_ONCE = 128  # resident grids that a device of any compute capability can have (CUDA C++ Programming Guide)


def is_impossible(counters: Mapping[str, int]) -> bool:
    """Whether no windows can have seen these counters: more concurrent kernels than a device runs, or time without the
    windows or launches to account for it. If several growths are possible, so is their sum."""
    kernels_ns = sum(counters.get(name, 0) for name in NS_OF.values())
    return (
        kernels_ns > AT_ONCE * counters.get(WINDOW_NS, 0)
        or (counters.get(WINDOW_NS, 0) > 0 and not counters.get(WINDOWS, 0))
        or any(counters.get(NS_OF[one], 0) > 0 and not counters.get(LAUNCHES_OF[one], 0) for one in CLASSES)
    )


def has_work(work: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether a process counted work, not only kernels seen in windows."""
    return any(not counters.keys() <= _NAMES for counters in work.values())

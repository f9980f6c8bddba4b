"""Vectors with a peak table of their own, whose rows have the members that those of the common table lack, and the
reverse."""

import copy
import hashlib
from typing import Any

from flopsd.core.ledger.statement import encode
from flopsd.settings.data_files import parse_peaks
from tests.make_vectors import runs
from tests.make_vectors.files import Files, parsed, signed, statement_of, vector
from tests.make_vectors.rows import last_tally, rated_by
from tests.second_implementation.laws import PIPES
from tests.second_implementation.verify import read_yaml
from tests.support.columns import by_device, in_columns
from tests.support.story import chain, tell

J = dict[str, Any]
S = 10**9
TABLE = b"""\
# A peak table of no real part: odd rates, every optional member on one row or another, and none of them on others.
schema: flopsd-peaks/1
generated: 2026-11
margins:
  cycles: {ppm: 50000, source: "not calibrated"}
  activity: {ppm: 49999, source: "an odd one"}
  count: {ppm: 30001, source: "an odd one"}
unrated_pipe_bounds:
  fp16: {times_fp32: 5, source: "an odd one"}
  fp64: {times_fp32: 3, source: "an odd one"}
  int8: {times_fp32: 61, source: "an odd one"}
  dfma: {times_fp32: 2, source: "an odd one"}
cores_per_sm: []
accelerators:
  - id: all-formats
    vendor: nvidia
    names: ["All Formats"]
    pci_device_ids: []
    sm_count: 9
    gpm: true
    flop_per_cycle_per_sm:
      tensor: {fp16: 1001, tf32: 333, fp8: 2003, fp6: 2111, fp4: 4007, int8: 1999, int4: 3001, fp64: 101}
      vector: {fp32: 127, fp16: 255, fp64: 3}
    disputed_flop_per_cycle_per_sm:
      tensor: {fp16: 900, fp4: 5009, int8: 6007, tf32: 335}
    clocks_mhz: {tensor_ref: 1007, vector_ref: 997}
    margins:
      activity:
        fp16: {ppm: 20001, source: "a narrower one"}
        fp4: {ppm: 60001, source: "a wider one"}
        int4: {ppm: 80001, source: "the widest"}
        int8: {ppm: 10001, source: "a narrow one"}
        fp64: {ppm: 7, source: "hardly any"}
      cycles:
        fp8: {ppm: 90001, source: "the widest of this evidence"}
    energy:
      fp16: {low_fj_per_flop: 500, high_fj_per_flop: 900, source: "a range of its own"}
    status: unverified
    sources: ["of no real part"]
  - id: no-integers
    vendor: nvidia
    names: ["No Integers"]
    pci_device_ids: []
    integer_tensor: false
    flop_per_cycle_per_sm:
      tensor: {bf16: 2003, fp8: 4001, fp64: 77}
      vector: {fp32: 129}
    clocks_mhz: {vector_ref: 1013}
    status: unverified
    sources: ["of no real part"]
  - id: int4-alone
    vendor: nvidia
    names: ["Int4 Alone"]
    pci_device_ids: []
    sm_count: 3
    flop_per_cycle_per_sm:
      tensor: {tf32: 517, int4: 1033}
      vector: {fp32: 63, fp64: 31}
    disputed_flop_per_cycle_per_sm:
      tensor: {int4: 1035}
    status: unverified
    sources: ["of no real part"]
  - id: double-alone
    vendor: nvidia
    names: ["Double Alone"]
    pci_device_ids: []
    sm_count: 5
    flop_per_cycle_per_sm:
      tensor: {fp64: 211}
      vector: {fp64: 65, fp16: 33}
    clocks_mhz: {tensor_ref: 1019}
    status: unverified
    sources: ["of no real part"]
  - id: vectors-alone
    vendor: nvidia
    names: ["Vectors Alone"]
    pci_device_ids: []
    sm_count: 11
    flop_per_cycle_per_sm:
      vector: {fp32: 131}
    clocks_mhz: {tensor_ref: 1021, vector_ref: 1031}
    status: unverified
    sources: ["of no real part"]
  - id: chip-of-decimals
    vendor: aws
    names: ["chip"]
    peak_dense_tflop_per_s_per_chip: {bf16: 190.0625, fp32: 47.5, int8: 380.1875}
    peak_sparse_tflop_per_s_per_chip: {bf16: 380.3125, int8: 380.4375}
    status: unverified
    sources: ["of no real part"]
  - id: chip-without-integers
    vendor: aws
    names: ["another chip"]
    peak_dense_tflop_per_s_per_chip: {bf16: 90.1875, fp32: 7}
    status: unverified
    sources: ["of no real part"]
sagemaker_instances: {}
"""
SHARES: dict[str, J | None] = {
    "undeclared": None,
    "six": {"fp16": 100_003, "fp4": 899_989, "fp6": 8},
    "mixed": {"fp16": 3, "int4": 500_001, "int8": 1, "tf32": 77, "fp64": 11},
    "tie": {"fp16": 40_001, "fp4": 359_999, "int8": 600_000},
    "tie-of-odd": {"fp16": 40_003, "fp4": 359_997, "int8": 600_000},
    "integers": {"int4": 10**6},
    "double": {"fp64": 10**6},
    "bf16": {"bf16": 10**6},
}
# Row, declaration, the pipes that were read, and the properties that the device reported.
CASES: list[tuple[str, str, str, J]] = [
    ("all-formats", "undeclared", "all", {}),
    ("all-formats", "undeclared", "tensor", {"sm_clock_max_mhz": 998}),
    ("all-formats", "six", "all", {"sm_count": 4}),
    ("all-formats", "six", "tensor", {"sm_clock_max_mhz": 1009}),
    ("all-formats", "mixed", "all", {}),
    ("all-formats", "mixed", "tensor", {}),
    ("all-formats", "tie", "all", {}),
    ("all-formats", "tie-of-odd", "all", {}),
    ("all-formats", "integers", "tensor", {}),
    ("all-formats", "double", "all", {}),
    ("all-formats", "bf16", "tensor", {}),
    ("no-integers", "undeclared", "all", {"sm_count": 2}),
    ("no-integers", "undeclared", "tensor", {}),
    ("no-integers", "bf16", "tensor", {"sm_count": 2}),
    ("int4-alone", "undeclared", "all", {"sm_clock_max_mhz": 1033}),
    ("int4-alone", "integers", "tensor", {}),
    ("double-alone", "undeclared", "all", {}),
    ("double-alone", "double", "tensor", {}),
    ("vectors-alone", "undeclared", "all", {}),
    ("chip-of-decimals", "undeclared", "all", {}),
    ("chip-of-decimals", "bf16", "tensor", {"sm_count": 2, "sm_clock_max_mhz": 1000}),
    ("chip-without-integers", "undeclared", "tensor", {}),
    ("chip-without-integers", "integers", "all", {}),
]  # fmt: skip


def _tally(pipes: tuple[str, ...]) -> J:
    """Estimated and recovered work of those pipes in different amounts, a count, and time in which nothing was read."""
    return {
        "observed_ns": {"activity": 3 * S, "cycles": S - 3, "count": S, "utilization": S - 2},
        "gap_ns": {"stale": 5},
        "busy_sm_cycles": 13,
        "counted_flop": 10**9 + 9,
        "sm_cycles": {
            "activity": {pipe: 10**9 + 7 * at for at, pipe in enumerate(pipes)},
            "cycles": {pipe: 10**8 + 11 * at for at, pipe in enumerate(pipes)},
        },
        "uncertainty_sm_cycles": {"activity": {pipes[0]: 10**8 + 1}},
        "unread_ns": {pipe: 3 + at for at, pipe in enumerate(PIPES) if pipe not in pipes},
        "energy_mj": 2_000_003,
        "energy_ns": 5 * S,
    }


def peaks_vectors() -> Files:
    files: Files = {}
    peaks, rows = parse_peaks(TABLE, "peaks.yaml"), {row["id"]: row for row in read_yaml(TABLE)["accelerators"]}
    original = by_device([dict(line.record()) for line in parsed(tell(runs.small))])
    original[0]["peak_table_sha256"] = hashlib.sha256(TABLE).hexdigest()
    for row, label, some, reported in CASES:
        shares, pipes = SHARES[label], PIPES if some == "all" else ("tensor", "fp32")
        records = copy.deepcopy(original)
        stated = None if shares is None else {"shares_ppm": shares, "declared_by": "config"}
        records[2].update(
            {**rated_by(rows[row]), "sm_count": None, "sm_clock_max_mhz": None, "precision": stated, **reported}
        )
        last_tally(records, _tally(pipes))
        journal = chain(in_columns(records))
        name = f"valid/table-{row}-{label}-{some}"
        what = f"A peak table of its own: pipes ({some}) on the row {row}, the format {label}."
        ledger = signed(encode(statement_of(journal, peaks=peaks)))
        files |= {**vector(name, what, ledger, journal, peaks="peaks.yaml"), f"{name}/peaks.yaml": TABLE}
    return files

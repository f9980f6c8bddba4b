"""The results file, schema `flopsd-hardware/1`. FLOP and SM-cycles are decimal text, since JSON numbers lose digits.

schema        flopsd-hardware/1
origin        hardware; simulated (the stand-in driver); synthetic (made up, to test the page)
date          as passed in, or null
plan          quick, full or simulated
commit        of flopsd, or null
versions      {flopsd, python, torch, cuda}; torch and cuda null where simulated
peak_table_sha256  the peak table that cycles were rated with
device        {name, driver, nvml, binding, sm_clock_max_mhz, power_limit_mw, gpm_streaming,
               uuid, part, sm_count, evidence, evidence_reason}
settings      {changed: whether the suite was allowed to change clocks and power}
privileges    {euid, sys_admin, container, as_nobody}: see privileges.py
daemon        {interval_seconds, cpu_seconds, wall_seconds, sealed, exit_code, verified}
loads         one object a load, in order:
  name, kind, format, size, variant, setting, seconds_asked
  status        done, unavailable or failed; then reason says why and the rest is absent
  begin_ns, end_ns, steps, flop_per_step, counted_flop_per_step (by PyTorch, or null)
  true_flop     steps x flop_per_step; of an int8 load integer operations, here and in all that follows
  metered       {from_ns, to_ns,
                 declared, undeclared: {low, measured, high} with and without the load's number format,
                 exported_flop: growth of flopsd_flop_total or flopsd_integer_operations_total (undeclared; a float, as Prometheus has it),
                 pipes: [{evidence, pipe, precision, sm_cycles, flop}], most FLOP first,
                 observed_seconds by evidence, gap_seconds by reason, energy_joules}
  ratio         measured (declared) / true_flop; null where either is missing or nothing was to be counted
  main          {pipe, evidence, ratio}: the pipe with most FLOP alone against true_flop, or null
  inside        whether low <= true_flop <= high, declared; null where there is no high
  clock_mhz     {mean, min, max, readings} while it ran, or null
  power_watts, event_reasons (NVML clock event bits, or-ed), watch_fault
  raw           {whole, steady: {ns, percent, cycles_ab, cycles_bc, cycles_ac} or null,
                 spacings: [{ms, any_tensor: {status, value}}]}; values {status, value} by GPM id
probes        what was asked once, see probes.py and tools.py: {uptime_seconds, streaming, clock_buffer, frozen,
               blinded (null: not allowed), dcgm, nsight, operators (null: simulated), windows}; dcgm, nsight and windows
               {why} where they cannot be asked
questions     [{number, subject, question, asked, answer, not_answered}]: answer or not_answered is null
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = "flopsd-hardware/1"
ORIGINS = ("hardware", "simulated", "synthetic")
_KEYS = {"schema", "origin", "date", "plan", "commit", "versions", "peak_table_sha256", "device", "settings", "privileges",
         "daemon", "loads", "questions"}  # fmt: skip

Document = Mapping[str, Any]


class ResultsError(Exception):
    """A file that is not a results file of this schema."""


def save(document: Document, path: Path) -> None:
    """Write it completely or not at all."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    os.replace(beside, path)


def read(path: Path) -> Document:
    """The document in `path`. Raises ResultsError."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as fault:
        raise ResultsError(f"{path}: cannot be read: {fault}") from fault
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ResultsError(f"{path}: not a results file of {SCHEMA}")
    missing = _KEYS - document.keys()
    if missing or document["origin"] not in ORIGINS:
        raise ResultsError(f"{path}: lacks {sorted(missing)}" if missing else f"{path}: origin {document['origin']!r}")
    return document

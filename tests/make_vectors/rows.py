"""Vectors of rows: every pipe on every row of the vectors' peak table, declared and undeclared, and members that no
figure needs."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from flopsd.core.ledger.statement import SealFacts, statement
from tests.make_vectors import runs
from tests.make_vectors.files import SEALED_AT, Files, facts_of, parsed, statement_of, vector
from tests.second_implementation.laws import PIPES
from tests.second_implementation.verify import read_yaml
from tests.support.columns import by_device, in_columns
from tests.support.story import PEAKS, VERSION, chain, table, tell

J = dict[str, Any]
DECLARED: dict[str, J | None] = {
    "undeclared": None,
    "bf16": {"bf16": 10**6},
    "int8": {"int8": 10**6},
    "mixed": {"bf16": 333_333, "int8": 600_001, "tf32": 66_666},
    "tiny": {"bf16": 999_993, "fp8": 7},
}
KEYS: dict[str, tuple[str, J | None, bool]] = {
    "file-private": ("A key in a file that only its owner reads, who is not the job's user.", {"kind": "file", "ownerUser": "7", "mode": "0600"}, False),
    "file-open": ("A key in a file that all may read.", {"kind": "file", "ownerUser": "7", "mode": "0604"}, False),
    "file-of-the-group": ("A key in a file that a group may read.", {"kind": "file", "ownerUser": "7", "mode": "0640"}, False),
    "file-of-the-job": ("A key in a file of the job's user.", {"kind": "file", "ownerUser": "1000", "mode": "0600"}, False),
    "file-beside-a-container": ("A key in a file, and a job in a container of its own.", {"kind": "file", "ownerUser": "7", "mode": "0644"}, True),
    "in-kms": ("A key that is used over a network.", {"kind": "awskms"}, False),
}  # fmt: skip


def _tally(pipes: tuple[str, ...], ns: int) -> J:
    """Work of those pipes, and time in which the others were not read; one has more doubt than cycles."""
    cycles = {pipe: 10**9 + 7 * at for at, pipe in enumerate(pipes)}
    return {
        "observed_ns": {"activity": ns - 3, "utilization": 1},
        "gap_ns": {"stale": 2},
        "busy_sm_cycles": 11,
        "sm_cycles": {"activity": cycles},
        "uncertainty_sm_cycles": {"activity": {pipes[0]: 2 * 10**9, pipes[-1]: 3}},
        "unread_ns": {pipe: 5 for pipe in PIPES if pipe not in pipes},
    }


def rows_vectors() -> Files:
    files: Files = {}
    records = by_device([dict(line.record()) for line in parsed(tell(runs.small))])
    for row in read_yaml(PEAKS.read_bytes())["accelerators"]:
        peak_row = row["id"]
        for label, shares in DECLARED.items():
            for some, pipes in (("all", PIPES), ("tensor", ("tensor", "fp32"))):
                if some == "tensor" and label not in ("mixed", "undeclared"):
                    continue

                def edit(found: list[J], row: J = row, shares: J | None = shares, pipes: Any = pipes) -> None:
                    stated = None if shares is None else {"shares_ppm": shares, "declared_by": "config"}
                    found[2].update(rated_by(row), sm_count=None, sm_clock_max_mhz=None, precision=stated)
                    last_tally(found, _tally(pipes, 6 * 10**9))

                what = f"Pipes ({some}) on the row {peak_row}, the format {label}."
                files |= _made(f"rows-{peak_row}-{label}-{some}", what, records, edit)
    for name, what, changed in (
        ("count-of-nothing", "The vendor's software was read and counted nothing.", {"observed_ns": {"count": 6 * 10**9}}),
        ("count-unread", "The vendor's count, and no time of it.", {"observed_ns": {"activity": 6 * 10**9}, "counted_flop": 5}),
        ("busy-of-nothing", "Utilization was read, and no cycle was busy.", {"observed_ns": {"utilization": 6 * 10**9}}),
        ("entries-of-zero", "Entries of 0 are as absent, in `sm_cycles` excepted.", {"observed_ns": {"activity": 6 * 10**9, "count": 0, "utilization": 0}, "gap_ns": {"end_unknown": 0}, "unread_ns": {"fp16": 0}, "sm_cycles": {"activity": {"fp32": 0}}}),
    ):  # fmt: skip
        files |= _made(f"rows-{name}", what, records, partial(last_tally, changed=changed))
    return {**files, **_keys(records)}


def rated_by(row: J) -> J:
    """The properties by which a device matches that row of a peak table."""
    ids = row.get("pci_device_ids") or [None]
    return {"peak_row": row["id"], "model": row["names"][0], "pci_device_id": ids[0] and int(ids[0], 16)}


def last_tally(records: list[J], changed: J) -> None:
    """One checkpoint, with that tally."""
    kept = {name: records[4]["devices"][0][name] for name in ("number", "to_ns")}
    records[4]["devices"] = [{**kept, **copy.deepcopy(changed)}]
    at = records[4]["devices"][0]["to_ns"]
    records[4]["gaps"] = [[0, at - ns, at, reason] for reason, ns in changed.get("gap_ns", {}).items() if ns]
    del records[3]


def _made(name: str, what: str, records: list[J], edit: Callable[[list[J]], object]) -> Files:
    changed = copy.deepcopy(records)
    edit(changed)
    journal = chain(in_columns(changed))
    return vector(f"valid/{name}", what, statement_of(journal), journal)


def _keys(records: list[J]) -> Files:
    """Who could read the key that sealed."""
    from flopsd.core.ledger.history_from_records import read_history

    files: Files = {}
    for name, (what, key, container) in KEYS.items():
        changed = copy.deepcopy(records)
        changed[0]["isolation"].update(job_user=1000, job_container=container)
        journal = chain(in_columns(changed))
        seal = SealFacts(VERSION, SEALED_AT, key=key)
        said = statement(read_history(line.record() for line in parsed(journal)), table(), facts_of(journal), seal)
        files |= vector(f"valid/sealed-by-{name}", what, said, journal)
    return files

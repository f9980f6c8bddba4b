"""A run whose daemon was restarted many times, each time for the same work, and a log with a line for each start."""

import json
from pathlib import Path
from typing import Any

from flopsd.attestation.seal import Sealed
from flopsd.journal.framing import GENESIS, frame
from tests.support.runs import H100, Run


def restarted(folder: Path, starts: int) -> Sealed:
    """A run whose daemon was restarted every ten seconds."""
    run = Run(folder / "state", devices=(H100,))
    run.meter(2)
    run.finish()
    once = [json.loads(line)["r"] for line in run.state.journal.read_bytes().splitlines()]
    head, lines = GENESIS, list[bytes]()
    for start in range(starts):
        for record in once:
            line, head = frame(head, later(record, start))
            lines.append(line)
    run.state.journal.write_bytes(b"".join(lines))
    sealed = run.seal(folder / "out" / "ledger.json")
    log, after = run.lines[-1], 0
    with (folder / "log").open("w") as file:
        for number, line in enumerate(lines, start=1):
            after += len(line)
            if number % len(once) == 0:
                file.write(anchor(log, number // len(once), number, after, line[6:70].decode()) + "\n")
    return sealed


def later(record: dict[str, Any], start: int) -> dict[str, Any]:
    """The same record in a later start of the daemon."""
    by = start * 10**10
    found = {
        name: value + by if name.endswith("ns") and isinstance(value, int) else value for name, value in record.items()
    }
    found["incarnation"] = start + 1
    if "gaps" in record:
        found["tallies"] = {**record["tallies"], "to_ns": [to_ns + by for to_ns in record["tallies"]["to_ns"]]}
        assert record["gaps"] == []
    return found


def anchor(line: str, start: int, number: int, size: int, head: str) -> str:
    """The checkpoint line of that start, if every earlier start did as much."""
    fields = dict(word.split("=") for word in line.split()[1:])
    sums = {name: str(int(value) * start) for name, value in fields.items() if name.endswith("_flop")}
    fields |= {"incarnation": str(start), "records": str(number), "bytes": str(size), "head": head, **sums}
    return " ".join(["flopsd-checkpoint", *(f"{name}={value}" for name, value in fields.items())])

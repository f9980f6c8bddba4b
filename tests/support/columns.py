"""Checkpoints in the form that tests edit: one tally for each device, where the journal has columns."""

from typing import Any

from tests.second_implementation.arithmetic import tallies_of

J = dict[str, Any]


def by_device(records: list[J]) -> list[J]:
    """The same records with `devices` as a list of tallies, each with its `number`."""
    return [
        {name: value for name, value in record.items() if name != "tallies"}
        | {"devices": [{"number": number, **tally} for number, tally in tallies_of(record)]}
        if record["kind"] == "checkpoint"
        else record
        for record in records
    ]


def in_columns(records: list[J]) -> list[J]:
    """The inverse."""
    found = []
    for record in records:
        if isinstance(record.get("devices"), list):
            rows = [{name: value for name, value in row.items() if name != "number"} for row in record["devices"]]
            record = {**record, "devices": [row["number"] for row in record["devices"]], "tallies": _columns(rows)}
        found.append(record)
    return found


def _columns(rows: list[Any]) -> J:
    names = dict.fromkeys(name for row in rows if row is not None for name in row)
    columns = {name: [None if row is None else row.get(name) for row in rows] for name in names}
    return {name: _columns(c) if any(isinstance(v, dict) for v in c) else c for name, c in columns.items()}

"""Describe a user's own peak table or policy: that it is valid, its digest, and its differences from flopsd's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flopsd.core.peaks import PeakTable
from flopsd.core.values import shown
from flopsd.errors import FlopsdError
from flopsd.report.numbers import fj_per_flop, percent
from flopsd.settings.data_files import packaged_policies, parse_peaks, parse_policy, read_peaks, read_policy
from flopsd.settings.strict_yaml import read_yaml

# The fields that name a member of a list in these files.
_NAMES = {"accelerators": ("id",), "rules": ("id",), "cores_per_sm": ("nvml_arch", "compute_capability")}


def peaks_lines(file: str) -> list[str]:
    """Lines about the peak table in `file`. Raises PeakTableError."""
    data, name = read_peaks(file)
    table = parse_peaks(data, name)
    return [
        f"{file} is a valid peak table",
        f"  SHA-256  {table.sha256}",
        f"  parts    {len(table.parts)}",
        f"  margins  {_margins(table)}",
        f"  energy   {_energy(table)}",
        *_unread(_document(data)["accelerators"]),
        *_against(data, read_peaks()[0], "flopsd's own table"),
    ]


def _unread(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each field of a row that no row of flopsd's own table has: a misspelled one is read by nobody."""
    known = {name for row in _document(read_peaks()[0])["accelerators"] for name in row}
    return [f"  NOT READ accelerators {row['id']} {name}" for row in rows for name in row if name not in known]


def policy_lines(name: str) -> list[str]:
    """Lines about a policy: the name of a packaged policy, or a file. Raises PolicyError."""
    path = packaged_policies().get(name, Path(name))
    data = read_policy(path)
    policy = parse_policy(data, str(path))
    lines = [
        f"{name} is a valid policy",
        f"  SHA-256  {policy.sha256}",
        f"  id       {policy.id}",
        f"  rules    {', '.join(rule.id for rule in policy.rules)}",
    ]
    own = packaged_policies().get(policy.id)
    if own is None:
        return [*lines, f"flopsd has no policy {policy.id} of its own"]
    return [*lines, *_against(data, read_policy(own), f"flopsd's own {policy.id}")]


def _margins(table: PeakTable) -> str:
    found = [f"{evidence.value} {percent(margin.ppm)}" for evidence, margin in table.margins.items()]
    found += [
        f"{part.id} {evidence.value} {name} {percent(margin.ppm)}"
        for part in table.parts.values()
        for (evidence, name), margin in part.margins.items()
    ]
    return ", ".join(found)


def _energy(table: PeakTable) -> str:
    found = [
        f"{part.id} {name} {fj_per_flop(known.low_fj, known.high_fj)}"
        for part in table.parts.values()
        for name, known in part.energy.items()
    ]
    return ", ".join(found) or "of no part"


def _against(data: bytes, own: bytes, what: str) -> list[str]:
    if data == own:
        return [f"it is {what}"]
    found = changes(_document(own), _document(data))
    title = f"compared with {what}, SHA-256 {hashlib.sha256(own).hexdigest()}:"
    return [title, *(f"  {line}" for line in found or ["the same data; only comments or layout differ"])]


def _document(data: bytes) -> Mapping[str, Any]:
    document, problems = read_yaml(data, "")
    if problems:
        raise FlopsdError("; ".join(problems))
    found: Mapping[str, Any] = document
    return found


def changes(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """A line for each member that only one of two files has, and for each field that differs."""
    before, after = dict(_members(own)), dict(_members(given))
    lines = [f"added    {name}" for name in after if name not in before]
    lines += [f"missing  {name}" for name in before if name not in after]
    for name in before:
        if name in after and before[name] != after[name]:
            old, new = dict(_fields(before[name], "")), dict(_fields(after[name], ""))
            lines += [
                f"changed  {name}{field}: {_text(old.get(field, 'absent'))} -> {_text(new.get(field, 'absent'))}"
                for field in dict.fromkeys([*old, *new])
                if old.get(field) != new.get(field)
            ]
    return lines


def _text(value: object) -> str:
    return shown(value) if value is None or isinstance(value, bool) else str(value)


def _members(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The rows, rules and other entries of each section, by section and name."""
    for section, value in document.items():
        names: Sequence[str] = _NAMES.get(section, ())
        if names and isinstance(value, list):
            for member in value:
                yield " ".join([section, *(str(member[name]) for name in names if name in member)]), member
        elif isinstance(value, Mapping):
            for name, member in value.items():
                yield f"{section} {name}", member
        else:
            yield section, value


def _fields(value: Any, at: str) -> Iterator[tuple[str, str]]:
    """Every value below `value` by its path, such as ` margins.activity.bf16.ppm`."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from _fields(member, f"{at}.{name}" if at else f" {name}")
    elif isinstance(value, list):
        for number, member in enumerate(value, 1):
            yield from _fields(member, f"{at}[{number}]")
    else:
        yield at, " ".join(str(value).split())

"""The setting `devices`: the operator's rule for which visible devices belong to this job."""

from __future__ import annotations

import re
from enum import Enum

from flopsd.core.dataclass import dataclass

EXPECTED = "expected all, visible, pod, job, job:ID, processes, or device UUIDs and indices such as GPU-5a4d…,1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


class Whose(str, Enum):
    ALL = "all"
    VISIBLE = "visible"
    NAMED = "named"
    POD = "pod"
    JOB = "job"
    PROCESSES = "processes"


@dataclass(frozen=True, slots=True)
class DevicesSetting:
    """Which devices are measured. `names` only with NAMED; `job` only with JOB, None: the current job."""

    whose: Whose = Whose.ALL
    names: tuple[str, ...] = ()
    job: str | None = None

    def __str__(self) -> str:
        if self.whose is Whose.NAMED:
            return ",".join(self.names)
        return self.whose.value if self.job is None else f"{self.whose.value}:{self.job}"


def parse_devices(value: object) -> DevicesSetting:
    """The setting from text (`visible`, `job:4711`, `GPU-5a4d0000,1`) or a YAML list of names and indices. Raises
    ValueError, which says what is expected."""
    if isinstance(value, bool) or not isinstance(value, str | int | list | tuple):
        raise ValueError(EXPECTED)
    parts: list[object] = list(value.split(",")) if isinstance(value, str) else []
    if not isinstance(value, str):
        parts = [value] if isinstance(value, int) else list(value)
    if any(isinstance(part, bool) or not isinstance(part, str | int) for part in parts):
        raise ValueError(EXPECTED)
    names = [str(part).strip() for part in parts]
    rules = {whose.value: whose for whose in Whose if whose is not Whose.NAMED}
    if len(names) == 1:
        word, colon, job = names[0].partition(":")
        if word == Whose.JOB.value and colon:
            if not job.strip() or any(c.isspace() for c in job.strip()):
                raise ValueError("expected a job id after job:, such as job:4711")
            return DevicesSetting(Whose.JOB, job=job.strip())
        if names[0] in rules:
            return DevicesSetting(rules[names[0]])
    for name in names:
        if name in rules:
            raise ValueError(f"{name!r} cannot be combined with others; {EXPECTED}")
        # A word without a digit or dash is a misspelt rule, not a device.
        if not _NAME.fullmatch(name) or not any(c.isdigit() or c == "-" for c in name):
            raise ValueError(f"{name!r} is neither a rule nor a device; {EXPECTED}" if name else EXPECTED)
    if not names:
        raise ValueError(EXPECTED)
    if len({name.casefold() for name in names}) != len(names):
        raise ValueError("a device is named twice")
    return DevicesSetting(Whose.NAMED, tuple(names))

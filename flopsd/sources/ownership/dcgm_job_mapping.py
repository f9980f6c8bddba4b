"""A job's devices by dcgm-exporter's HPC job mapping: a folder with one file per GPU that lists the jobs on it.

A file is named `<gpu>`, or `<gpu>.<gpu instance>` for a MIG slice, and holds one job id per line; a scheduler's
prolog writes it. Source: NVIDIA/dcgm-exporter README "How to include HPC jobs in metric labels",
internal/pkg/transformation/hpc.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.ownership.rule import Ownership, OwnershipResult, VendorDevices, all_unknown
from flopsd.system.file_presence import is_folder

VARIABLE = "DCGM_HPC_JOB_MAPPING_DIR"
_FILE_BYTES = 64 * 1024
_FILE = re.compile(r"(?P<gpu>\d+)(?:\.(?P<instance>\d+))?", re.ASCII)


def mapping_dir(environment: Mapping[str, str]) -> Path:
    """Return the folder of job mappings. Raises OwnershipError if the environment names none."""
    folder = environment.get(VARIABLE, "")
    if not folder:
        raise OwnershipError(
            "no folder of job mappings is known",
            hint=f"set {VARIABLE} to the folder that dcgm-exporter's --hpc-job-mapping-dir names",
        )
    return Path(folder)


def this_job(environment: Mapping[str, str], job_name: str | None) -> str:
    """Return the id of the job that this process belongs to. Raises OwnershipError."""
    found = environment.get("SLURM_JOB_ID") or job_name
    if not found:
        raise OwnershipError("this job has no id here", hint="name it in the setting: devices: job:ID")
    return found


class JobRule:
    constant = False
    lasting = False  # the next job on this node gets the devices that this one leaves

    def __init__(self, folder: Path, job: str, vendor: VendorDevices) -> None:
        self._folder, self._job, self._vendor = folder, job, vendor
        self.words = f"the devices of job {job} by the mapping files in {folder}"

    def judge(self, devices: Sequence[Device]) -> OwnershipResult:
        if not self._vendor.in_job_mapping:
            return OwnershipResult(all_unknown(devices, "job mapping files name NVIDIA GPUs only"))
        found_verdicts = {device.uid: Ownership(False) for device in devices}
        unmatched: list[str] = []
        jobs: dict[str, set[str]] = {}
        for path in self._files():
            match = _FILE.fullmatch(path.name)
            assert match is not None
            name = match["gpu"] if match["instance"] is None else f"nvidia{match['gpu']}/gi{match['instance']}"
            found = self._vendor.find(name, devices)
            try:
                named = _jobs(path)
            except OSError as fault:
                found_verdicts |= all_unknown(found, f"{path} cannot be read: {fault.strerror}")
                continue
            if not found and self._job in named:
                unmatched.append(path.name)
            for device in found:
                jobs.setdefault(device.uid, set()).update(named)
        for uid, named in jobs.items():
            others = len(named - {self._job})
            shared = f"{others} other job{'s' if others > 1 else ''}" if others else None
            if self._job in named:
                found_verdicts[uid] = Ownership(True, shared)
        return OwnershipResult(found_verdicts, tuple(unmatched))

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if _FILE.fullmatch(path.name) and not is_folder(path))
        except OSError as fault:
            raise OwnershipError(
                f"the folder of job mappings {self._folder} cannot be read: {fault.strerror}",
                hint="the scheduler's prolog fills it for dcgm-exporter; mount it where flopsd runs",
            ) from fault


def _jobs(path: Path) -> set[str]:
    with path.open("rb") as file:
        text = file.read(_FILE_BYTES).decode("utf-8", "replace")
    return {line.strip() for line in text.splitlines() if line.strip()}

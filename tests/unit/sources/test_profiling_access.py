"""Whether profiling counters are open to this process, by the files of driver and kernel, and the one thing to do."""

from pathlib import Path

import pytest

from flopsd.sources.nvml.profiling_access import ProfilingAccess, profiling_access
from flopsd.sources.nvml.profiling_advice import advice

FIRST, ROOTLESS = "0 0 4294967295", "0 1000 65536"
NONE, SYS_ADMIN, PERFMON = "0", "200000", "4000000000"  # capability(7): bits 21 and 38
OPEN, CLOSED = "RmProfilingAdminOnly: 0", "RmProfilingAdminOnly: 1"


@pytest.mark.parametrize(
    ("parameters", "capabilities", "namespace", "access"),
    [
        (OPEN, NONE, FIRST, ProfilingAccess.OPEN_TO_ALL),
        ("NVreg_RestrictProfilingToAdminUsers: 0", NONE, ROOTLESS, ProfilingAccess.OPEN_TO_ALL),
        (CLOSED, SYS_ADMIN, FIRST, ProfilingAccess.OPEN_BY_CAPABILITY),
        (CLOSED, SYS_ADMIN, ROOTLESS, ProfilingAccess.USER_NAMESPACE),
        (CLOSED, PERFMON, FIRST, ProfilingAccess.PERFMON_ONLY),
        (CLOSED, NONE, FIRST, ProfilingAccess.NO_CAPABILITY),
        (CLOSED, "no number", FIRST, ProfilingAccess.UNKNOWN),
        ("RmProfilingAdminOnly: 2", SYS_ADMIN, FIRST, ProfilingAccess.UNKNOWN),
        ("Other: 0", SYS_ADMIN, FIRST, ProfilingAccess.UNKNOWN),
    ],
)
def test_the_access_follows_from_the_driver_and_the_kernel(
    tmp_path: Path, parameters: str, capabilities: str, namespace: str, access: ProfilingAccess
) -> None:
    files = {"driver/nvidia/params": parameters, "self/status": f"CapEff:\t{capabilities}", "self/uid_map": namespace}
    for name, text in files.items():
        file = tmp_path / "proc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    assert profiling_access(False, tmp_path) is access
    assert profiling_access(True, tmp_path) is ProfilingAccess.CONFIDENTIAL_COMPUTING


def test_a_server_that_runs_comes_before_what_flopsd_would_start() -> None:
    program, opened = "/usr/bin/dcgm-exporter", ProfilingAccess.OPEN_TO_ALL
    said = [
        advice(opened, "host", servers, program)
        for servers in (("dcgm-exporter", "nv-hostengine"), ("nv-hostengine",), ())
    ]
    assert len(set(said)) == 3
    assert ["--remote-hostengine-info" in one for one in said] == [False, True, False]
    assert [program in one for one in said] == [False, False, True]

"""Whether profiling counters are open to this process, by the files of driver and kernel, and the recommended
action."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from flopsd.sources.nvml.profiling_access import ProfilingAccess, profiling_access
from flopsd.sources.nvml.profiling_advice import advice, mig_advice, words_of

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


PROGRAM, BOTH = "/usr/bin/dcgm-exporter", ("dcgm-exporter", "nv-hostengine")


@pytest.mark.parametrize(
    ("access", "platform", "servers", "program", "words"),
    [
        ("confidential_computing", "host", BOTH, PROGRAM, "none in this mode"),
        ("open_to_all", "host", BOTH, PROGRAM, "a dcgm-exporter runs here but does not answer"),
        ("no_capability", "host", BOTH[:1], None, "a dcgm-exporter runs here but does not answer"),
        ("no_capability", "host", BOTH[1:], PROGRAM, "a DCGM hostengine runs here"),
        ("open_to_all", "slurm", (), PROGRAM, f"none: `flopsd run` starts {PROGRAM} to read them"),
        ("open_by_capability", "slurm", (), PROGRAM, f"none: `flopsd run` starts {PROGRAM} to read them"),
        ("open_by_capability", "slurm", (), None, "install dcgm-exporter and DCGM"),
        ("perfmon_only", "slurm", (), PROGRAM, "install dcgm-exporter and DCGM"),
        ("no_capability", "host", (), PROGRAM, "run a dcgm-exporter as root, or load the module"),
        ("user_namespace", "elsewhere", (), PROGRAM, "run a dcgm-exporter as root, or load the module"),
        ("unknown", "slurm", (), PROGRAM, "start a dcgm-exporter as root with the node"),
        ("no_capability", "kubernetes", (), None, "run dcgm-exporter's DaemonSet"),
        (
            "no_capability",
            "sagemaker-training",
            (),
            None,
            "as far as is known a training job's container never has this capability",
        ),
    ],
)
def test_one_action_is_recommended_for_each_situation(
    access: str, platform: str, servers: Sequence[str], program: str | None, words: str
) -> None:
    """A running server comes before one that flopsd would start."""
    assert advice(ProfilingAccess(access), platform, servers, program).startswith(words)


def test_the_words_for_each_access_state_whether_it_is_open() -> None:
    said = {access: words_of(access) for access in ProfilingAccess}
    assert len(set(said.values())) == len(said)
    begins = {True: "open to ", False: "closed to ", None: "not known to be open"}
    assert all(words.startswith(begins[access.is_open]) for access, words in said.items())
    platforms = ("host", "kubernetes", "slurm", "sagemaker-training")
    assert len({mig_advice(platform) for platform in platforms}) == 4
    assert mig_advice("elsewhere") == mig_advice("host")

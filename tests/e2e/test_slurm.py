"""Jobs under the real Slurm: metered by prolog and epilog, and by `flopsd exec` under srun; merged over nodes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import environment, flopsd, predicate, wait_until
from tests.support.scenario import Scenario, Segment, h100
from tests.support.slurm import NODES, ROOT, Slurm, python, slurm

SCRIPT = ROOT / "slurm" / "flopsd-job"
BUSY = (Segment(1000, hmma=0.5, util=100, watts=500),)
pytestmark = pytest.mark.tool("slurmctld", "slurmd", "srun", "unshare", "nsenter", "ip", "setsid", "pgrep")


@pytest.fixture(scope="module")
def cluster(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    script = shutil.copy(SCRIPT, folder / "flopsd-job")
    for node in NODES:
        scenario = Scenario((h100(BUSY), h100(BUSY))).write(folder / f"{node}.txt")
        scenario.write_text(scenario.read_text().replace("uuid=GPU-", f"uuid=GPU-{node}-"))
    (folder / "flopsd").write_text(
        f"#!/bin/sh\nLD_LIBRARY_PATH={standin} NVML_STANDIN_SCENARIO={folder}/$SLURMD_NODENAME.txt PYTHONPATH={ROOT} "
        f'exec {python()} -m flopsd "$@"\n'
    )
    (folder / "flopsd").chmod(0o755)
    conf = (
        f"FLOPSD={folder}/flopsd\nSTATE={folder}/jobs/$SLURMD_NODENAME\nSOCKETS=/run/jobs-$SLURMD_NODENAME\n"
        "FLOPSD_LISTEN=off FLOPSD_INTERVAL=0.2\nexport FLOPSD_LISTEN FLOPSD_INTERVAL\n"
    )
    with slurm(folder, Path(script), conf, environment(None)) as running:
        yield running


def ledger(folder: Path) -> Path:
    (found,) = wait_until(lambda: list(folder.glob("*.ledger.json")), f"a ledger in {folder}")
    return Path(found)


def key_of(folder: Path) -> str:
    return str(next(folder.glob("*.ledger.pub")))


def test_prolog_and_epilog_meter_each_job_by_itself(cluster: Slurm) -> None:
    work = f"""
        from flopsd.client import connect
        import os
        one = connect(); one.declare(method="lora"); one.close(30)
        print(os.environ["SLURM_NODEID"], os.environ["FLOPSD_SOCKET"])
    """
    program = cluster.folder / "work.py"
    program.write_text("\n".join(line.strip() for line in work.splitlines()))
    done = cluster.run(
        "srun", "-N2", "--gres=gpu:1", "--ntasks-per-node=1", python(), str(program), PYTHONPATH=str(ROOT)
    )
    assert len(done.stdout.split()) == 4
    job = next(path.name for path in (cluster.folder / "jobs" / "n1").iterdir())
    for rank, node in enumerate(NODES):
        folder = cluster.folder / "jobs" / node / job
        told = predicate(ledger(folder))
        assert (told["run"]["id"], told["run"]["platform"]) == (f"slurm-{job}", "slurm")
        assert (told["node"]["name"], told["node"]["rank"]) == (node, rank)
        (uuid,) = [device["uuid"] for device in told["devices"]]
        assert uuid.startswith(f"GPU-{node}-"), "of two GPUs one is the job's"
        assert told["incarnations"][0]["end"] == "SIGTERM"
        assert '"lora"' in ledger(folder).with_suffix(".journal.jsonl").read_text()
    wait_until(lambda: cluster.states() == ["idle", "idle"], "no node is drained")

"""The command line merges a SageMaker-like job of two nodes, and verifies the result."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.jobs import Nodes, gpus, sagemaker
from tests.support.process import FLOPSD, environment, in_process


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def test_two_nodes_become_a_job_and_two_jobs_a_lineage(nodes: Nodes) -> None:
    for rank in (0, 1):
        nodes.ledger(sagemaker(rank))
    archive = nodes.folder / "output.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(nodes.folder / "ledgers", arcname=".")
    job = nodes.folder / "job.json"
    common = ("--trust", str(nodes.public), "--key", nodes.key)
    done = in_process("merge", str(archive), *common, "--ledger", str(job), code=0)
    assert "job train-7: 2 nodes" in done.stdout
    assert "COMPLETE" in done.stdout

    public = str(job.with_suffix(".pub"))
    seen = in_process("verify", str(job), "--key", public, "--children", str(nodes.folder / "ledgers"), code=0)
    assert "2 of its 2 ledgers given and unchanged, 2 of them recomputed." in seen.stdout
    assert "measured    8.21x10^15 FLOP" in seen.stdout
    facts = json.loads(in_process("verify", str(job), "--key", public, "--children", str(archive), "--json").stdout)
    assert (facts["verified"], facts["children"]["given"], facts["predicate"]["kind"]) == (True, 2, "job")

    small = nodes.ledger(sagemaker(0, ("algo-1",), job="tune", boot="b"), "tune", devices=gpus("tune"))
    out = nodes.folder / "lineage.json"
    done = in_process("merge", str(job), str(small), *common, "--kind", "lineage", "--lineage", "model-1", "--ledger",
                  str(out), "--json", code=0)  # fmt: skip
    facts = json.loads(done.stdout)
    assert facts["predicate"]["lineage"] == {"name": "model-1", "runs": ["train-7", "tune"]}
    assert in_process("verify", str(out), "--key", str(out.with_suffix(".pub"))).returncode == 0


def test_refusals_have_their_exit_codes_and_messages(nodes: Nodes) -> None:
    one, two = (nodes.ledger(sagemaker(rank)) for rank in (0, 1))
    out = nodes.folder / "job.json"
    common = ("--trust", str(nodes.public), "--key", nodes.key, "--ledger", str(out))
    in_process("merge", str(one), *common, code=1,
           says=("flopsd: the job is incomplete: rank 1 (algo-2): no ledger", "--allow-incomplete"))  # fmt: skip
    assert not out.exists()
    done = in_process("merge", str(one), *common, "--allow-incomplete", code=0)
    assert "INCOMPLETE" in done.stdout
    assert "no upper bound is known" in done.stdout
    assert in_process("merge", str(one), *common, "--kind", "lineage").returncode == 2
    assert in_process("merge", str(one), str(two), *common, "--nodes", "0").returncode == 2
    two.write_bytes(two.read_bytes().replace(b'"sig": "', b'"sig": "AA'))
    assert in_process("merge", str(one), str(two), *common).returncode == 3
    seen = in_process("verify", str(two), "--key", str(nodes.public), "--json")
    assert (seen.returncode, json.loads(seen.stdout)["verified"]) == (3, False)
    assert in_process("verify", str(one), "--key", str(nodes.public), "--children", str(two)).returncode == 2


def test_a_temporary_folder_without_space_is_reported(nodes: Nodes) -> None:
    one, out = nodes.ledger(sagemaker(0, ("algo-1",))), nodes.folder / "job.json"
    command = ["merge", str(one), "--trust", str(nodes.public), "--key", nodes.key, "--ledger", str(out)]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *FLOPSD, *command],  # no file may be longer than 4 KiB
        env=environment(None), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "flopsd: cannot write to the temporary folder: " in done.stderr
    assert "TMPDIR" in done.stderr
    assert not out.exists()

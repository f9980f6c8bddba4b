"""Jobs of several nodes without hardware: each node's ledger from the real writer, journal and sealing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flopsd.attestation.merge.merge import Merged, MergeRequest, merge_ledgers
from flopsd.attestation.signing.keys import ensure_key, load_signer
from flopsd.core.declarations import NOTHING_DECLARED, OperatorDeclarations
from flopsd.core.model import Device
from flopsd.core.policy.policy_file import Policy
from flopsd.settings.platform import Context
from flopsd.system.clock import NS_PER_S
from flopsd.system.progress import Progress, no_progress
from flopsd.testing import FakeClock
from tests.support.runs import H100, Run

HOSTS = ("algo-1", "algo-2")
JOB = "train-7"


def sagemaker(rank: int, hosts: Sequence[str] = HOSTS, *, job: str = JOB, boot: str = "") -> Context:
    """The environment of a SageMaker training container. The boot stands for the attempt."""
    boot = boot or f"boot-{hosts[rank]}"
    arn = f"arn:aws:sagemaker:eu-west-1:1:training-job/{job}"
    return Context("sagemaker-training", job, hosts[rank], boot, boot, rank, arn, tuple(hosts), "ml.p5.48xlarge")


def slurm(rank: int, *, job: str = "slurm-9", attempt: str = "0") -> Context:
    """A node of a Slurm job, which knows its rank but has no roster."""
    return Context("slurm", job, f"node-{rank}", f"boot-{rank}", attempt, rank)


def plain(node: str) -> Context:
    return Context("host", None, node, f"boot-{node}", f"boot-{node}")


def gpus(node: str, count: int = 2) -> tuple[Device, ...]:
    return tuple(replace(H100, uid=f"GPU-{node}-{index}", index=index) for index in range(count))


class Nodes:
    """A folder with one signing key in which ledgers of nodes are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key, _ = ensure_key(None, folder)
        self.public = folder / "trusted.pub"
        self.public.write_bytes(load_signer(self.key).public.pem)

    def ledger(self, context: Context, name: str = "", *, seconds: int = 5, devices: tuple[Device, ...] | None = None,
               run_id: str | None = None, later: int = 0, key: str | None = None, replay: bool = False,
               declared: OperatorDeclarations = NOTHING_DECLARED, policies: tuple[Policy, ...] = ()) -> Path:  # fmt: skip
        """A sealed ledger of one node, begun `later` seconds after the others, with its journal beside it."""
        name = name or context.node
        clock = FakeClock()
        clock.advance(later * NS_PER_S)
        run = Run(
            self.folder / "state" / name, devices=gpus(context.node) if devices is None else devices, context=context,
            replay=replay, run_id=run_id or context.job_name or "run-1", clock=clock, declared=declared,
            policies=policies,
        )  # fmt: skip
        run.meter(seconds)
        run.finish()
        return run.seal(self.folder / "ledgers" / name / "ledger.json", key or self.key).ledger

    def merge(self, *arguments: Path | str, clock: FakeClock | None = None, progress: Progress = no_progress,
              **how: object) -> Merged:  # fmt: skip
        """Merge into `job.json`; the text for people goes to `notes`."""
        self.notes: list[str] = []
        out = how.pop("ledger", self.folder / "out" / "job.json")
        request = MergeRequest(
            [str(a) for a in arguments],
            how.pop("trust", [str(self.public)]),  # type: ignore[arg-type]
            self.key,
            Path(str(out)),
            **how,  # type: ignore[arg-type]
        )
        return merge_ledgers(request, clock or FakeClock(), self.notes.append, progress)

"""Runs written reading by reading: the real writer and journal on a fake clock, for the test vectors."""

import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flopsd.core.declarations import NOTHING_DECLARED, OperatorDeclarations
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.isolation import UNKNOWN, Isolation
from flopsd.core.model import (
    Active,
    Busy,
    Counted,
    Device,
    Evidence,
    Gap,
    GapReason,
    Growth,
    Pipe,
    Precision,
    Reading,
    Sweep,
    Totals,
)
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.policy_file import Policy
from flopsd.core.session_protocol import Event
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.codes import CodeKey
from flopsd.journal.framing import GENESIS, frame
from flopsd.journal.journal import Journal
from flopsd.journal.reading import read_journal
from flopsd.journal.state_dir import StateDir
from flopsd.settings.data_files import load_peaks, parse_policy
from flopsd.settings.platform import Context
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
PEAKS = VECTORS / "peaks.yaml"
POLICY = VECTORS / "policy.yaml"
VERSION = "0.1.0"  # the version that the vectors state, whatever version flopsd has

H100 = Device("GPU-00000000-0000-4000-8000-000000000001", 0, "nvidia", "NVIDIA H100 80GB HBM3", "1650000000001",
              "00000000:10:00.0", 0x2330, 132, 1980, None, "595.91.07", Evidence.ACTIVITY)  # fmt: skip
CYCLES_H100 = replace(H100, evidence=Evidence.CYCLES)
A100 = Device("GPU-00000000-0000-4000-8000-000000000002", 1, "nvidia", "NVIDIA A100-SXM4-80GB", "1650000000002",
              "00000000:11:00.0", 0x20B2, 108, 1410, None, "595.91.07", Evidence.UTILIZATION, "no GPM on this GPU",
              "run a dcgm-exporter")  # fmt: skip
A10G = replace(A100, uid="GPU-00000000-0000-4000-8000-000000000003", index=2, model="NVIDIA A10G", pci_device_id=0x2237,
               sm_count=80, sm_clock_max_mhz=1710, evidence=Evidence.ACTIVITY, evidence_reason="")  # fmt: skip
HALF_KNOWN = replace(A10G, uid="GPU-00000000-0000-4000-8000-000000000004", index=3, model="Half Known GPU",
                     pci_device_id=0x9998, sm_count=7, sm_clock_max_mhz=None)  # fmt: skip
STRANGER = replace(H100, uid="GPU-00000000-0000-4000-8000-000000000005", index=4, model="NVIDIA X9000", pci_device_id=0x9999)  # fmt: skip
TRAINIUM = Device("trn-0", 0, "aws", "trainium1", driver="2.24.7.0", evidence=Evidence.COUNT)
CONTEXT = Context("slurm", "slurm-4711", "node-0", "00000000-0000-4000-8000-00000000b001", "0", 0)

NO_SECRETS: Mapping[int, bytes] = {}
Work = Active | Busy | Counted | Gap | Growth
Plan = Mapping[Device, Callable[["Second"], Work | None]]


@dataclass(frozen=True)
class Second:
    """One interval of one device, and the boot time at which its running counters began."""

    begin_ns: int
    end_ns: int


class Story:
    """One run. Each `during` gives the work of each device in each of some seconds."""

    def __init__(self, folder: Path, devices: Sequence[Device], *, precision: Precision | None = None,
                 device_precision: Mapping[str, Precision] | None = None, replay: bool = False,
                 context: Context = CONTEXT, run: str = "vector", declared: OperatorDeclarations = NOTHING_DECLARED,
                 policies: tuple[Policy, ...] = (), isolation: Isolation = UNKNOWN,
                 secrets: Mapping[int, bytes] = NO_SECRETS, power: int = 1) -> None:  # fmt: skip
        self.secrets, self.power = secrets, power  # in units of 0.7 W
        self.state, self.clock, self.devices, self.context, self.run = (StateDir(folder), FakeClock(), tuple(devices), context, run)  # fmt: skip
        self.settings = WriterSettings(
            NS_PER_S,
            5 * NS_PER_S,
            "c0" * 32,
            precision,
            ("told",),
            device_precision or {},
            declared,
            policies,
            isolation,
        )
        self.renamed: Mapping[str, Device] = {}
        self.stated = {"recording": "vector.jsonl", "sha256": "d1" * 32, "origin": "test vector"} if replay else None
        self.start()

    def start(self) -> None:
        self.state.acquire()
        self.journal = Journal(self.state)
        recovery = self.journal.recover("aside.jsonl")
        history = read_history(self.journal.read())
        secret = self.secrets.get(len(history.incarnations) + 1)
        codes = None if secret is None else lambda start: CodeKey(secret, start)
        self.writer = Writer(
            self.journal, table(), self.settings, self.context, self.clock, lambda _: None, codes=codes
        )
        self.writer.begin(self.run, RecoveredRun(history, recovery))
        self.since_ns = self.clock.boottime_ns()
        self.writer.take(Message("told", self.since_ns, self.devices, Sweep(()), opened={"replay": self.stated}))

    def during(self, seconds: int, plan: Plan) -> None:
        for _ in range(seconds):
            self.clock.advance(NS_PER_S)
            second = Second(self.since_ns, self.clock.boottime_ns())
            readings = tuple(self._readings(plan, second))
            self.writer.take(
                Message("told", second.end_ns, self.devices, Sweep(readings, renamed=self.renamed), read_seconds=0.001)
            )
            self.since_ns = second.end_ns

    def says(self, *events: Event) -> None:
        """Declarations of training processes at this moment."""
        for event in events:
            self.writer.take_event(event)

    def _readings(self, plan: Plan, second: Second) -> list[Reading]:
        found = []
        for device, does in plan.items():
            work = does(second)
            if work is None:
                continue
            lost = isinstance(work, Gap)
            counters = (
                {} if lost or device.vendor == "aws" else {"energy_mj": second.end_ns * 7 * self.power // 10_000_001}
            )
            totals = running(second) if device is CYCLES_H100 and not lost else None
            found.append(Reading(device.uid, second.begin_ns, second.end_ns, work, counters, totals))
        return found

    def kill(self, for_seconds: int = 0) -> None:
        self.journal.close()
        self.state.release()
        self.clock.advance(for_seconds * NS_PER_S)

    def reboot(self, context: Context) -> None:
        """Another boot: the boot-time clock begins anew, the wall clock goes on."""
        self.clock = FakeClock(30 * NS_PER_S, self.clock.wall_ns())
        self.context = context

    def finish(self) -> bytes:
        """The whole journal of the ended run."""
        assert self.writer.close("sigterm")
        self.kill()
        return self.state.journal.read_bytes()

    def so_far(self) -> bytes:
        """The journal up to a checkpoint of a run that goes on."""
        assert self.writer.checkpoint()
        self.kill()
        return self.state.journal.read_bytes()


def tell(story: Callable[[Path], bytes], secrets: Mapping[int, bytes] = NO_SECRETS) -> bytes:
    """The journal of a story, as `VERSION` would have written it, with the codes of `secrets` by daemon start."""
    # In memory where possible: journals are synced at every record.
    with tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")) as folder:
        journal = Path(folder) / "copy.jsonl"
        journal.write_bytes(story(Path(folder) / "state"))
        lines = list(read_journal(journal))
    records: list[dict[str, Any]] = [dict(line.record()) for line in lines]
    for record in records:
        if record["kind"] == "begin":
            record["flopsd"] = VERSION
    return chain(records, secrets, {at for at, line in enumerate(lines) if not line.code})


def chain(
    records: Sequence[Mapping[str, Any]],
    secrets: Mapping[int, bytes] = NO_SECRETS,
    without: Collection[int] = (),
    skipped: Collection[int] = (),
) -> bytes:
    """Records as a journal with a new chain, and with codes from `secrets` by daemon start. Each record gets one,
    except those in `without`; before those in `skipped` one key is omitted."""
    lines, head, key = [], GENESIS, None
    for at, record in enumerate(records):
        if record["kind"] == "begin":
            start = record["incarnation"]
            key = CodeKey(secrets[start], start) if start in secrets else None
        if key is not None and at in skipped:
            key.advance()
        coded = None if at in without else key
        line, head = frame(head, record, None if coded is None else coded.code)
        if coded is not None:
            coded.advance()
        lines.append(line)
    return b"".join(lines)


def policy() -> Policy:
    return parse_policy(POLICY.read_bytes(), str(POLICY))


def table() -> PeakTable:
    return load_peaks(str(PEAKS))


def running(second: Second) -> Totals:
    """Running counters since the boot: 1700 MHz of 132 SMs, the tensor pipe active in a fifth of the cycles."""
    elapsed = 1700 * 132 * second.end_ns // 1000
    pipes = {
        Pipe.TENSOR: elapsed // 5 + 11, Pipe.TENSOR_HMMA: elapsed // 6, Pipe.TENSOR_IMMA: elapsed // 60,
        Pipe.TENSOR_DFMA: elapsed // 600, Pipe.FP64: elapsed // 700, Pipe.FP32: elapsed // 13, Pipe.FP16: 0,
    }  # fmt: skip
    return Totals("GPM pipes x132, elapsed x132", elapsed, pipes)


def gap(reason: GapReason) -> Callable[[Second], Work]:
    return lambda _: Gap(reason)


def active(
    sm_count: int, mhz: int, shares: Mapping[Pipe, int], doubt: int = 0, unread: tuple[Pipe, ...] = (), swing: int = 0
) -> Callable[[Second], Work]:
    """Pipes active in `shares` parts per million of the cycles at `mhz`. `doubt` is the uncertainty of each pipe in
    cycles per million, and `swing` its independent part, of which the squares are summed."""

    def work(second: Second) -> Work:
        cycles = sm_count * mhz * (second.end_ns - second.begin_ns) // 1000
        seen = {pipe: cycles * share // 1_000_000 for pipe, share in shares.items()}
        unsure = {pipe: n * doubt // 1_000_000 for pipe, n in seen.items()} if doubt else {}
        squares = {pipe: (n * swing // 1_000_000) ** 2 for pipe, n in seen.items()} if swing else {}
        return Active(Evidence.ACTIVITY, seen, unsure, unread, squares)

    return work

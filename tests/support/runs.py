"""Whole runs without hardware or waiting: the real writer, journal and sealing on a clock stepped by hand."""

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.keys import ensure_key
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.verify import Verified, verify_ledger
from flopsd.core.declarations import NOTHING_DECLARED, OperatorDeclarations
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.model import (
    Active,
    Busy,
    Device,
    DeviceUid,
    Evidence,
    Gap,
    GapReason,
    Gauges,
    Pipe,
    Precision,
    Reading,
    Sweep,
)
from flopsd.core.policy.policy_file import Policy
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.recovery.local_journal import recover
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.journal.codes import CodeKey
from flopsd.journal.journal import Journal
from flopsd.journal.reading import read_journal
from flopsd.journal.state_dir import StateDir
from flopsd.settings.platform import Context
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.testing import FakeClock
from tests.support.strategies import table

H100 = Device("GPU-h", 0, "nvidia", "NVIDIA H100 80GB HBM3", "165", "00000000:10:00.0", 0x2330, 132, 1980, None,
              "595.91.07", Evidence.ACTIVITY, "")  # fmt: skip
A100 = Device("GPU-a", 1, "nvidia", "NVIDIA A100-SXM4-80GB", "166", "00000000:11:00.0", 0x20B2, 108, 1410, None,
              "595.91.07", Evidence.UTILIZATION, "no GPM on this GPU")  # fmt: skip
STRANGER = replace(H100, uid="GPU-x", index=2, model="NVIDIA X9000", pci_device_id=0x9999)
CONTEXT = Context("host", None, "node-0", "boot-1", "boot-1")


class Run:
    """One run on one state folder. The H100 works, the A100 has only an upper bound, and the stranger is not in the
    table."""

    def __init__(self, folder: Path, *, devices: tuple[Device, ...] = (H100, A100), precision: Precision | None = None,
                 context: Context = CONTEXT, replay: bool = False,
                 device_precision: Mapping[str, Precision] | None = None, run_id: str = "run-1",
                 clock: FakeClock | None = None, declared: OperatorDeclarations = NOTHING_DECLARED,
                 policies: tuple[Policy, ...] = (), sources: tuple[str, ...] = ("sim",),
                 secret: bytes | None = None) -> None:  # fmt: skip
        self.secret = secret
        self.device_precision, self.run_id, self.sources = device_precision or {}, run_id, sources
        self.state, self.clock, self.devices, self.context = StateDir(folder), clock or FakeClock(), devices, context
        self.precision, self.replay, self.declared, self.policies = precision, replay, declared, policies
        self.lines: list[str] = []
        self.start()

    @property
    def secrets(self) -> tuple[bytes, ...]:
        return () if self.secret is None else (self.secret,)

    def start(self, job_began_ns: int | None = None) -> None:
        self.state.acquire()
        self.journal = Journal(self.state)
        recovered = recover(self.journal, self.clock, None)
        settings = WriterSettings(
            NS_PER_S, 10 * NS_PER_S, "0" * 64, self.precision, self.sources, self.device_precision, self.declared, self.policies
        )  # fmt: skip
        settings = settings.continuing(recovered.history)
        self.writer = Writer(
            self.journal, table(), settings, self.context, self.clock, self.lines.append, codes=codes_of(self.secret)
        )
        self.writer.begin(self.run_id, recovered, job_began_ns=job_began_ns)
        found = {"recording": "r.jsonl", "sha256": "0" * 64, "origin": "test"} if self.replay else None
        self.since_ns = self.clock.boottime_ns()
        self.writer.take(Message(self.sources[0], self.since_ns, self.devices, Sweep(()), opened={"replay": found}))

    def meter(
        self,
        seconds: int,
        fault: GapReason | None = None,
        faulty: Collection[DeviceUid] | None = None,
        source: str = "sim",
    ) -> None:
        """`faulty` names the devices with the fault; None means all."""
        for _ in range(seconds):
            self.clock.advance(NS_PER_S)
            now_ns = self.clock.boottime_ns()
            faults = {device: fault if faulty is None or device.uid in faulty else None for device in self.devices}
            gauge = Gauges({Pipe.TENSOR_HMMA: 0.5, Pipe.FP32: 0.1}, 1.0, 1500)
            working = [one for one, why in faults.items() if why is None and one.pci_device_id == H100.pci_device_id]
            gauges = {device.uid: gauge for device in working}
            sweep = Sweep(tuple(self._reading(*one, now_ns) for one in faults.items()), gauges)
            self.writer.take(Message(source, now_ns, self.devices, sweep, read_seconds=0.001))
            self.since_ns = now_ns

    def _reading(self, device: Device, fault: GapReason | None, now_ns: int) -> Reading:
        counters = {} if device is STRANGER else {"energy_mj": now_ns // 2_000_000}
        work: Active | Busy | Gap = Gap(fault) if fault is not None else Busy(60_000_000_000)
        if fault is None and device is not A100:
            cycles = 1500 * (device.sm_count or 0) * (now_ns - self.since_ns) // 1000
            work = Active(
                Evidence.ACTIVITY,
                {Pipe.TENSOR_HMMA: cycles // 2, Pipe.TENSOR_IMMA: cycles // 50, Pipe.FP32: cycles // 10},
            )
        return Reading(device.uid, self.since_ns, now_ns, work, counters)

    def kill(self) -> None:
        """The run as kill -9 leaves it: no checkpoint, no end."""
        self.journal.close()
        self.state.release()

    def finish(self, why: str = "sigterm") -> None:
        assert self.writer.close(why)
        self.kill()

    def restart(self, after_s: int = 0, *, ends: bool = False, devices: tuple[Device, ...] | None = None) -> None:
        """End the daemon start, by a kill unless it `ends` in order, and begin another after `after_s` seconds."""
        self.finish() if ends else self.kill()
        self.clock.advance(after_s * NS_PER_S)
        self.devices = self.devices if devices is None else devices
        self.start()

    def seal(
        self,
        ledger: Path,
        key: str | None = None,
        *,
        journal: Path | None = None,
        clock: Clock | None = None,
        **how: Any,
    ) -> Sealed:
        """Seal the run's journal or another; `how`: further arguments of `seal_journal`."""
        uri, _ = ensure_key(key, self.state.path)
        how = {"code_secrets": self.secrets, **how}
        return seal_journal(journal or self.state.journal, uri, ledger, clock or self.clock, **how)


def codes_of(secret: bytes | None) -> Callable[[int], CodeKey] | None:
    return None if secret is None else lambda start: CodeKey(secret, start)


def history_of(journal: Path) -> History:
    return read_history(line.record() for line in read_journal(journal))


def interrupted(run: Run) -> Run:
    """A fault, a kill, and a second daemon start that continues the run."""
    run.meter(12)
    run.meter(2, GapReason.DRIVER_TIMEOUT)
    run.restart(4)
    run.meter(3)
    return run


def finished(folder: Path, seconds: int, **how: object) -> Run:
    """A run without a fault, from start to end."""
    run = Run(folder, **how)  # type: ignore[arg-type]
    run.meter(seconds)
    run.finish()
    return run


def copied(sealed: Sealed, folder: Path) -> Sealed:
    """The same three files in another folder, for a test to damage."""
    ledger, *_ = (Path(shutil.copy(path, folder)) for path in (sealed.ledger, sealed.journal, sealed.public_key))
    return replace(sealed, ledger=ledger)


def verified(sealed: Sealed, **how: Any) -> Verified:
    return verify_ledger(open_ledger(sealed.ledger, [load_public(str(sealed.public_key))]), **how)


def sealed_run(folder: Path, **how: object) -> Sealed:
    """A small sealed run with a fault, a kill and a second daemon start."""
    run = Run(folder / "state", **how)  # type: ignore[arg-type]
    run.meter(12)
    run.meter(2, GapReason.DRIVER_TIMEOUT)
    run.meter(3)
    run.restart(4)
    run.meter(5)
    run.finish()
    return run.seal(folder / "out" / "ledger.json")

"""The whole run: find the GPU, start flopsd beside it, measure every load, answer the questions, keep the results."""

import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flopsd import __version__
from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.settings.data_files import load_peaks
from flopsd.system.clock import NS_PER_S, SystemClock
from tests.hardware import preflight, privileges, probes, table, windows
from tests.hardware.loads import Knobs, Load, Spec
from tests.hardware.meter import ROOT, Meter, MeterError
from tests.hardware.questions import answers
from tests.hardware.raw import Gpu, GpuError
from tests.hardware.results import SCHEMA, save
from tests.hardware.runner import Bench, measure

SETTLE_NS = 300_000_000  # GPM counters are renewed every 100 ms (nvml.h)
SIMULATED_SETTLE_NS = 100_000_000
DEVICE = "cuda:0"


class SuiteError(Exception):
    """The run cannot go on. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run. `plan` is quick, full or simulated."""

    out: Path
    plan: str
    specs: tuple[Spec, ...]
    date: str | None
    commit: str | None
    interval_seconds: float
    change_settings: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPU for the loads, and the function that makes a load. `uid` None: unknown, so there must be only one."""

    uid: str | None
    load: Callable[[Spec], Load]
    versions: dict[str, str | None]
    settle_ns: int
    torch_device: str | None = None


def run_suite(options: Options, say: Callable[[str], object]) -> dict[str, Any]:
    """Measure and save `results.json` after every load. Raises SuiteError."""
    options.out.mkdir(parents=True, exist_ok=True)
    clock = SystemClock()
    machine = _simulated(options, clock) if options.plan == "simulated" else _torch(clock)
    try:
        gpu = Gpu(machine.uid, clock)
        return _measured(options, machine, gpu, clock, say)
    except (GpuError, MeterError) as fault:
        raise SuiteError(str(fault)) from fault


def _measured(
    options: Options, machine: Machine, gpu: Gpu, clock: SystemClock, say: Callable[[str], object]
) -> dict[str, Any]:
    peaks, facts, path = load_peaks(), gpu.facts(), options.out / "results.json"
    asked = probes.before(gpu)
    knobs = Knobs(gpu.uid, allowed=options.change_settings, power_limit_mw=facts["power_limit_mw"])
    loads: list[dict[str, Any]] = []
    seal = preflight.can_seal()
    if not seal:
        say(preflight.sealing_advice())
    with Meter(options.out, clock, interval_seconds=options.interval_seconds, seal=seal) as meter:
        entry = meter.device(gpu.uid)
        document = _document(options, machine, facts, entry, peaks.sha256, gpu.uid, loads) | {"probes": asked}
        bench = Bench(meter, gpu, entry, peaks, clock, knobs, machine.settle_ns)
        for line in table.header(document):
            say(line)
        began_ns, spent = clock.boottime_ns(), meter.cpu_seconds()
        for spec in options.specs:
            loads.append(measure(bench, machine.load(spec)))
            document["daemon"] |= {
                "cpu_seconds": meter.cpu_seconds() - spent,
                "wall_seconds": (clock.boottime_ns() - began_ns) / NS_PER_S,
            }
            document["questions"] = answers(document)
            save(document, path)
            say(table.row(loads[-1]))
    document["daemon"] |= {"exit_code": meter.exit_code, "verified": _verified(meter.ledger) if seal else None}
    document["probes"] |= probes.after(gpu, change_settings=options.change_settings, torch_device=machine.torch_device)
    simulated = options.plan == "simulated"
    document["probes"]["windows"] = {"why": "the driver was simulated"} if simulated else windows.windows()
    document["questions"] = answers(document)
    save(document, path)
    for question in document["questions"]:
        say(table.answer(question))
    say(
        f"flopsd ended with {meter.exit_code}, ledger {'verified' if document['daemon']['verified'] else 'not verified'}; {path}"
    )
    return document


def _document(
    options: Options, machine: Machine, facts: dict[str, Any], entry: DeviceEntry, peak_table_sha256: str, uid: str,
    loads: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    device = entry.device
    known = {"uuid": uid, "part": entry.part_id, "sm_count": device.sm_count, "evidence": device.evidence.value,
             "evidence_reason": device.evidence_reason}  # fmt: skip
    return {
        "schema": SCHEMA,
        "origin": "simulated" if options.plan == "simulated" else "hardware",
        "date": options.date,
        "plan": options.plan,
        "commit": options.commit or _commit(),
        "versions": {"flopsd": __version__, "python": platform.python_version(), **machine.versions},
        "peak_table_sha256": peak_table_sha256,
        "device": {**facts, **known},
        "settings": {"changed": options.change_settings},
        "privileges": privileges.facts(uid),
        "daemon": {"interval_seconds": options.interval_seconds, "cpu_seconds": 0.0, "wall_seconds": 0.0,
                   "sealed": preflight.can_seal(), "exit_code": None, "verified": None},
        "loads": loads,
        "questions": [],
    }  # fmt: skip


def _torch(clock: SystemClock) -> Machine:
    import torch

    from tests.hardware.torch_loads import TorchLoad

    if not torch.cuda.is_available():
        raise SuiteError("this PyTorch sees no GPU; without one the suite itself can be proven: add --simulated")
    torch.cuda.init()
    uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    return Machine(
        None if uuid is None else "GPU-" + str(uuid).removeprefix("GPU-"),
        lambda spec: TorchLoad(spec, DEVICE, clock),
        {"torch": str(torch.__version__), "cuda": torch.version.cuda},
        SETTLE_NS,
        DEVICE,
    )


def _simulated(options: Options, clock: SystemClock) -> Machine:
    from tests.hardware.simulated import PART, Simulation

    simulation = Simulation(options.specs, options.out, clock, load_peaks().parts[PART])
    return Machine(simulation.uid, simulation.load, {"torch": None, "cuda": None}, SIMULATED_SETTLE_NS)


def _commit() -> str | None:
    try:
        asked = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip()


def _verified(ledger: Path) -> bool:
    command = [sys.executable, "-m", "flopsd", "verify", str(ledger), "--key", str(ledger.with_suffix(".pub"))]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=600).returncode == 0

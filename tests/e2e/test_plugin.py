"""A plug-in of others, as its user has it: both wheels in a fresh environment, the source found by its name."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flopsd.system.clock import NS_PER_S
from tests.second_implementation.arithmetic import payload_of
from tests.support.process import environment

pytestmark = pytest.mark.maintainer
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flopsd-amd"
RUN_SECONDS = "2.5"


@dataclass(frozen=True)
class Installed:
    """The environment with both wheels, and the stand-in for AMD's library."""

    folder: Path
    python: Path
    rocm: Path

    def run(self, *command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
        clean = {k: v for k, v in environment(None).items() if not k.startswith(("PYTHON", "ROCM_", "AMDSMI_"))}
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, env={**clean, **(env or {})}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("plugin")
    found = Installed(folder, folder / "venv" / "bin" / "python", folder / "rocm")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(EXAMPLE)]
    subprocess.run(command, check=True, capture_output=True)
    (ours,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    pip = found.python.with_name("pip")  # our pip for that environment: installing pip there takes seconds
    pip.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m pip --disable-pip-version-check --python {found.python} "$@"\n'
    )
    pip.chmod(0o755)
    code, said = found.run(pip, "install", "--quiet", "--no-compile", f"{wheel}[seal]", f"{ours}[test]", cwd=folder)
    assert code == 0, said
    found.rocm.mkdir()
    compile_it = "import sys, pathlib; from conftest import compile_standin; compile_standin(pathlib.Path(sys.argv[1]))"
    code, said = found.run(found.python, "-c", compile_it, found.rocm, cwd=EXAMPLE / "tests",
                           env={"PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
    assert code == 0, said
    return found


@pytest.mark.exhaustive  # the parts that its user needs are in the tests below
def test_the_plug_ins_own_tests_pass_against_the_wheels(installed: Installed) -> None:
    code, said = installed.run(
        installed.python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", EXAMPLE / "tests",
        cwd=installed.folder,
    )  # fmt: skip
    assert code == 0, said
    assert "passed" in said
    assert "skipped" not in said


def test_flopsd_runs_the_plug_in_by_its_name(installed: Installed, tmp_path: Path) -> None:
    """Rated by the rows that it ships; the daemon runs in real time."""
    busy = "gpu 5aff74a1-0000-1000-8000-00000000000{} 74a1 304 2100 1000 1000 750 SPX 0 full AMD Instinct MI300X OAM\n"
    (tmp_path / "gpus.txt").write_text("driver 1\n" + busy.format(0) + busy.format(1))
    env = {"ROCM_PATH": str(installed.rocm), "AMDSMI_STANDIN": str(tmp_path / "gpus.txt"),
           "PATH": f"{installed.python.parent}:{os.environ['PATH']}"}  # fmt: skip
    run = ["flopsd", "run", "--source", "amd", "--state-dir", "s", "--listen", "off",
           "--interval", "0.5", "--duration", RUN_SECONDS, "--no-seal"]  # fmt: skip
    code, said = installed.run(*run, cwd=tmp_path, env=env)
    assert code == 0, said
    code, said = installed.run("flopsd", "status", "--state-dir", "s", "--json",
                               cwd=tmp_path, env=env)  # fmt: skip
    assert code == 0, said
    status = json.loads(said)
    assert status["executed"]["measured"] is None
    assert status["executed"]["low"] == "0"
    for device in status["devices"]:
        assert device["evidence"] == ["utilization"]
        span_ns = sum(round(float(device[part]) * NS_PER_S) for part in ("observedSeconds", "gapSeconds"))
        # Always busy, so the ceiling is the whole time at the peak of all pipes: FP8, FP64, FP32 and four times that.
        at_most = 304 * 2100 * span_ns * (4096 + 128 + 256 + 4 * 256) // 1000
        assert float(device["observedSeconds"]) > 1
        assert int(device["executed"]["high"]) == pytest.approx(at_most, rel=1e-6)


def test_without_amds_library_flopsd_names_what_is_missing(installed: Installed, tmp_path: Path) -> None:
    code, said = installed.run(
        installed.python.parent / "flopsd", "run", "--source", "amd", "--listen", "off", "--state-dir", "s", "--no-seal",
        cwd=tmp_path, env={"ROCM_PATH": str(tmp_path / "nowhere")},
    )  # fmt: skip
    assert code == 4, said
    assert "the Python module amdsmi cannot use libamd_smi.so" in said
    assert "install amd-smi-lib" in said


def test_every_snippet_of_the_plug_in_page_runs(installed: Installed, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    blocks = re.findall(r"(?:^`([^`\n]+)`:\n\n)?^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert page.count("```") == 2 * len(blocks)
    project, card = tmp_path / "project", tmp_path / "cards" / "card0"
    for name, kind, text in blocks:
        assert name or kind == "sh", f"this block is neither a named file nor commands:\n{text}"
        if name:
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(text)
    card.mkdir(parents=True)
    for name, value in {"serial": "A7", "model": "Acme One", "units": "64", "max_mhz": "1000"}.items():
        (card / name).write_text(value + "\n")
    commands = "".join(text for _, kind, text in blocks if kind == "sh")
    env = {"PATH": f"{installed.python.parent}:{os.environ['PATH']}",
           "FLOPSD_ACME_ROOT": str(card.parent), "FLOPSD_LISTEN": "off"}  # fmt: skip
    with working(card):
        code, said = installed.run("sh", "-exc", commands, cwd=project, env=env)
        assert code == 0, said
        unnamed = installed.run("flopsd", "doctor", cwd=project, env=env)
    assert re.search(r"^\d+ passed in", said, re.MULTILINE), said
    assert "keeps the contract" in said
    assert "acme-A7), row acme-one (published), 64 SMs: evidence cycles by acme, a measurement" in " ".join(
        said.split()
    )
    assert "  added    accelerators acme-one\n" in said
    assert "\nVERIFIED: " in said
    assert "PEAK TABLE: rated by a peak table that is not flopsd's own: acme.peaks-" in " ".join(said.split())
    assert unnamed[0] == 4
    assert "`flopsd run --source acme` meters it" in unnamed[1]
    sealed = payload_of(project / "acme.json")["predicate"]
    sha256 = sealed["method"]["peakTableSha256"]
    beside = (project / f"acme.peaks-{sha256[:16]}.yaml").read_bytes()
    assert sha256 == hashlib.sha256(beside).hexdigest()
    (device,) = sealed["devices"]
    executed = sealed["totals"]["executed"]["byEvidence"]["cycles"]
    # By the page's rows: tensor cores active half of the time at 1024, FP32 an eighth at 128, 64 units at 1000 MHz.
    rate = 64 * 10**9 * (1024 // 2 + 128 // 8)
    assert int(executed["low"]) > 0
    assert int(executed["measured"]) == pytest.approx(rate * float(device["observedSeconds"]), rel=0.1)


@contextmanager
def working(card: Path) -> Iterator[None]:
    """The counters of an Acme card of 64 units at 1000 MHz, with tensor work for half of the time and FP32 for an
    eighth."""
    done = threading.Event()

    def count() -> None:
        while True:
            elapsed = 64 * time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            for name, value in {"elapsed": elapsed, "tensor": elapsed // 2, "fp32": elapsed // 8}.items():
                (card / "next").write_text(f"{value}\n")
                (card / "next").rename(card / f"{name}_cycles")
            if done.wait(0.02):
                return

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

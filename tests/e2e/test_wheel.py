"""Installation: sdist and wheel, in fresh environments of each Python, without and with extras."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.process import environment

pytestmark = pytest.mark.maintainer
ROOT = Path(__file__).parents[2]
OLDEST = "3.10"
PYTHONS = (OLDEST, *(pytest.param(version, marks=pytest.mark.exhaustive) for version in ("3.11", "3.12")), "3.13")
CORE = {"flopsd", "prometheus_client", "psutil", "pyyaml"}
CORE_BYTES_MAX = 5_000_000  # in addition to the interpreter: the budget of the design
WALK = (
    "import pkgutil, importlib, flopsd\n"
    "for m in pkgutil.walk_packages(flopsd.__path__, 'flopsd.'):\n"
    "    if m.name == 'flopsd.__main__' or m.name.startswith('flopsd.integrations.'): continue\n"
    "    importlib.import_module(m.name)\n"
    "from flopsd.settings.data_files import load_peaks, config_dir; load_peaks(); print(config_dir())"
)
SIZES = (
    "import importlib.metadata as m\n"
    "for d in m.distributions():\n"
    "    size = sum(p.stat().st_size for f in d.files or () if (p := f.locate()).is_file() and p.suffix != '.pyc')\n"
    "    print(d.name.lower().replace('-', '_'), size)"
)


def interpreter(version: str) -> str | None:
    """A Python of this version on this machine: on PATH, pyenv's, or ours."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (*sorted(pyenv.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}")):
        if found is not None and subprocess.run([found, "-c", "import venv, ensurepip"], check=False).returncode == 0:
            return str(found)
    return None


class Installed:
    """A fresh environment."""

    def __init__(self, folder: Path, python: str, *packages: str) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        subprocess.run([python, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet",
             "--disable-pip-version-check", "--no-compile", *packages],
            check=True,
        )  # fmt: skip

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / program, *arguments], cwd=self.folder, capture_output=True, text=True, check=False,
            env=environment(None),
        )  # fmt: skip


def test_the_wheel_contains_the_configuration_and_no_other_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("peaks.yaml", "flopsd.yaml", "recordings/h100x2.jsonl"):
        assert f"flopsd/_config/{wanted}" in names
    assert "flopsd/core/ledger/schema/ledger-v1.schema.json" in names
    shared = {name.partition(".data/data/")[2] for name in names}
    assert {"share/flopsd/flopsd.service", "share/flopsd/flopsd-job"} <= shared
    assert {
        "flopsd/report/report.css",
        "flopsd/report/print.css",
        "flopsd/telemetry/page/status.css",
        "flopsd/telemetry/page/status.js",
    } <= set(names)
    assert not [name for name in names if name.startswith(("tests", "scripts"))]


def test_the_sdist_contains_what_its_tests_need(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in ("systemd/flopsd.service", "slurm/flopsd-job", "docs/host.md", "config/flopsd.yaml", "Makefile",
                   "tests/conftest.py", "examples/flopsd-amd/pyproject.toml", "LICENSE"):  # fmt: skip
        assert wanted in names


@pytest.mark.exhaustive  # packages of 100 MB; ordinary runs use the installed ones
def test_the_test_dependencies_can_be_installed_on_the_oldest_python(wheel: Path, tmp_path: Path) -> None:
    if (python := interpreter(OLDEST)) is None:
        pytest.skip(f"no Python {OLDEST} here")
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    needed = [line.removeprefix("Requires-Dist: ").replace("extra == 'dev'", "python_version >= '3'")
              for line in metadata.splitlines() if line.startswith("Requires-Dist: ") and "'dev'" in line
              and "flopsd[" not in line]  # fmt: skip
    assert len(needed) > 10
    (tmp_path / "needed.txt").write_text("\n".join(needed))
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--dry-run", "--no-deps", "--quiet",
               "--ignore-installed", "--disable-pip-version-check", "-r", str(tmp_path / "needed.txt")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_core_alone_imports_everything_and_names_missing_extras(wheel: Path, tmp_path: Path) -> None:
    core = Installed(tmp_path, sys.executable, str(wheel))
    done = core.run("python", "-c", WALK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("flopsd/_config")
    doctor = core.run("flopsd", "doctor", "--key", "awskms:alias/flopsd", "--ledger-copy", "s3://bucket/key.json",
                      "--timestamp-url", "http://localhost/tsr", "--devices", "pod")  # fmt: skip
    assert doctor.returncode == 4
    for extra in ("seal", "nvml", "kms", "s3", "timestamp", "kubernetes"):
        assert f"pip install 'flopsd[{extra}]'" in doctor.stdout, extra
    report = ("report", str(ROOT / "tests" / "vectors" / "valid" / "activity-and-gaps" / "ledger.json"))
    shown = core.run("flopsd", *report)
    assert (shown.returncode, "NOT VERIFIED" in shown.stdout) == (0, True), shown.stderr
    page = core.run("flopsd", *report, "--format", "html")
    assert (page.returncode, page.stdout.startswith("<!doctype html>")) == (0, True), page.stderr
    hsm = core.run("flopsd", "doctor", "--key", "pkcs11:token=box;object=key")
    assert "pip install 'flopsd[hsm]'" in hsm.stdout
    assert "flopsd[s3]" not in hsm.stdout, "what nobody asked for is not missing"
    for verb in (("completion", "bash"), ("man",)):
        shell = core.run("flopsd", *verb)
        assert (shell.returncode, "pip install 'flopsd[shell]'" in shell.stderr) == (1, True)
    replay = ("run", "--source", "replay", "--listen", "off", "--duration", "1.5", "--state-dir", "s")
    users = tmp_path / "web.yml"
    users.write_text("basic_auth_users: {alice: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}")
    served = [*(part for part in replay if part not in ("--listen", "off")), "--web-config-file", str(users)]
    refused = core.run("flopsd", *served)
    assert (refused.returncode, "pip install 'flopsd[web]'" in refused.stderr) == (2, True), refused.stderr
    unsealed = core.run("flopsd", *replay)
    assert unsealed.returncode == 1
    assert "NOT SEALED: sealing and verifying need the packages of the extra 'seal'" in unsealed.stderr
    assert core.run("flopsd", *replay, "--no-seal").returncode == 0
    lines = (line.split() for line in core.run("python", "-c", SIZES).stdout.splitlines())
    sizes = {name: int(size) for name, size in lines}
    assert set(sizes) == CORE
    dependencies = sum(sizes.values()) - sizes["flopsd"]
    assert dependencies <= CORE_BYTES_MAX


@pytest.mark.parametrize("version", PYTHONS)
def test_each_python_meters_seals_and_verifies(wheel: Path, tmp_path: Path, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    installed = Installed(tmp_path, python, f"{wheel}[seal,shell]")
    done = installed.run("flopsd", "run", "--source", "replay", "--listen", "off", "--duration", "1", "--interval", "0.2",
                         "--state-dir", "s", "--ledger", "l.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    verified = installed.run("flopsd", "verify", "l.json", "--key", "l.pub", "--allow-replay")
    assert verified.returncode == 0, verified.stderr
    assert "_flopsd" in installed.run("flopsd", "completion", "zsh").stdout
    assert installed.run("flopsd", "man").stdout.startswith(".TH")

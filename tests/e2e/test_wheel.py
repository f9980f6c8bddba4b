"""What is installed: the wheel alone, in a fresh environment, without and with its extras."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
                   check=True, capture_output=True)  # fmt: skip
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_configuration_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("peaks.yaml", "flopsd.yaml", "recordings/h100x2.jsonl"):
        assert f"flopsd/_config/{wanted}" in names
    assert "flopsd/schema/ledger-v1.schema.json" in names
    assert {"flopsd/report_templates/report.html", "flopsd/report_templates/report.css"} <= set(names)
    assert {"flopsd/page/status.css", "flopsd/page/status.js"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "scripts"))]


def test_the_core_alone_imports_everything_and_names_missing_extras(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)], check=True)
    walk = (
        "import pkgutil, importlib, flopsd\n"
        "for m in pkgutil.walk_packages(flopsd.__path__, 'flopsd.'):\n"
        "    if m.name == 'flopsd.__main__' or m.name.startswith('flopsd.integrations.'): continue\n"
        "    importlib.import_module(m.name)\n"
        "from flopsd.config import load_peaks, config_dir; load_peaks(); print(config_dir())"
    )
    done = subprocess.run([python, "-c", walk], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("flopsd/_config")
    doctor = subprocess.run(
        [venv / "bin" / "flopsd", "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert doctor.returncode == 4
    assert "pip install 'flopsd[seal]'" in doctor.stdout
    assert "pip install 'flopsd[nvml]'" in doctor.stdout
    ledger = ROOT / "tests" / "vectors" / "valid" / "activity-and-gaps" / "ledger.json"
    report = [str(venv / "bin" / "flopsd"), "report", str(ledger)]
    told = subprocess.run(report, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (told.returncode, "NOT VERIFIED" in told.stdout) == (0, True), told.stderr
    page = subprocess.run([*report, "--format", "html"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert page.returncode == 1
    assert "pip install 'flopsd[report]'" in page.stderr
    replay: list[str | Path] = [
        venv / "bin" / "flopsd",
        "run",
        "--source",
        "replay",
        "--listen",
        "off",
        "--duration",
        "1.5",
        "--state-dir",
        "s",
    ]
    users = tmp_path / "web.yml"
    users.write_text("basic_auth_users: {alice: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}")
    served = [*(part for part in replay if part not in ("--listen", "off")), "--web-config-file", str(users)]
    refused = subprocess.run(served, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, "pip install 'flopsd[web]'" in refused.stderr) == (2, True), refused.stderr
    unsealed = subprocess.run(replay, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert unsealed.returncode == 1
    assert "NOT SEALED: sealing and verifying need the packages of the extra 'seal'" in unsealed.stderr
    assert subprocess.run([*replay, "--no-seal"], cwd=tmp_path, capture_output=True, check=False).returncode == 0
    sizes = "import importlib.metadata as m; print(sorted(d.name.lower() for d in m.distributions()))"
    names = subprocess.run([python, "-c", sizes], capture_output=True, text=True, check=True).stdout
    installed = set(eval(names)) - {"pip", "setuptools"}
    assert installed == {"flopsd", "prometheus-client", "prometheus_client", "psutil", "pyyaml"} & installed
    assert len(installed) == 4

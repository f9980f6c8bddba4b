"""The requirements of the suite that are missing here, and how to bring them to a machine that can fetch nothing."""

import importlib.util
import shutil
import sys
from collections.abc import Callable

NEEDED = {"yaml": "pyyaml", "prometheus_client": "prometheus-client", "pynvml": "nvidia-ml-py"}
_SEALING_WHEELS = ("cryptography", "cffi", "pycparser")


def is_here(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def missing(*, simulated: bool, here: Callable[[str], bool] = is_here) -> list[str]:
    """The missing requirements, as PyPI or tool names."""
    found = [package for module, package in NEEDED.items() if not here(module)]
    if not simulated and not here("torch"):
        found.append("torch")
    if simulated and shutil.which("cc") is None:
        found.append("cc")
    return found


def can_seal(here: Callable[[str], bool] = is_here) -> bool:
    """Whether the run can end in a signed ledger; otherwise it is metered without one."""
    return here("cryptography")


def advice(packages: list[str]) -> str:
    """Instructions for missing packages, with and without a network."""
    tools, wheels = [p for p in packages if p in ("cc", "torch")], [p for p in packages if p not in ("cc", "torch")]
    lines = [f"not found by {sys.executable}: {', '.join(packages)}"]
    if "torch" in tools:
        lines.append(
            "torch: name an interpreter that has PyTorch, as in make hardware HARDWARE_PYTHON=/opt/torch/bin/python3"
        )
    if "cc" in tools:
        lines.append("cc: the simulated suite compiles its driver: install a C compiler")
    if wheels:
        lines += [f"with a network:  {sys.executable} -m pip install {' '.join(wheels)}", *carried(wheels)]
    return "\n".join(lines)


def carried(packages: list[str]) -> list[str]:
    """The commands that carry wheels to a machine without a network."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [
        "without one, on a machine with a network fetch wheels into a folder that is carried over:",
        f"  python3 -m pip download --no-deps --only-binary=:all: --python-version {version} --implementation cp \\",
        "    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -d .whl " + " ".join(packages),
        "and there, before the suite:",
        "  python3 -m pip install --no-index --no-deps --target /tmp/site .whl/*.whl && export PYTHONPATH=/tmp/site",
    ]


def sealing_advice() -> str:
    """Why no ledger will be sealed, and how to change that."""
    return "\n".join(
        ["no ledger is sealed: cryptography is not here; metering needs neither.",
         *carried(list(_SEALING_WHEELS))]
    )  # fmt: skip

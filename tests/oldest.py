"""Run the unit and contract tests with the oldest versions that pyproject.toml allows of what flopsd itself needs.

`python -m tests.oldest`, with the interpreter to test, ideally the oldest. It needs a package index.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.paths import ROOT

_OLDEST = re.compile(r'"([a-z0-9-]+)>=([0-9.]+)')
# What tests need beside flopsd, in any version. boto3 has botocore's versions; pip tries hundreds before it finds it.
_TOOLS = (
    "boto3=={botocore}",
    "flask",
    "flask-cors",
    "moto[s3]",
    "check-jsonschema",
    "grpcio",
    "hypothesis",
    "jsonschema",
    "pytest>=8,<9.2",
    "pytest-xdist",
    "securesystemslib[crypto]",
)


def oldest() -> list[str]:
    """A constraint for each requirement of flopsd and its extra `all`."""
    text = (ROOT / "pyproject.toml").read_text()
    ours = text[text.index("\ndependencies = [") : text.index("\nall = [")]
    return sorted({f"{name}=={version}" for name, version in _OLDEST.findall(ours)})


def _tools() -> list[str]:
    (botocore,) = (one.partition("==")[2] for one in oldest() if one.startswith("botocore=="))
    return [tool.format(botocore=botocore) for tool in _TOOLS]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python, constraints = f"{folder}/bin/python", Path(folder, "constraints.txt")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        constraints.write_text("\n".join(oldest()) + "\n")
        print(" ".join(oldest()), flush=True)
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        subprocess.run([*install, "--editable", f"{ROOT}[all]", *_tools()], check=True)
        tests = [python, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadgroup", "--ignore", "tests/unit/tests"]
        chosen = ["-m", "not exhaustive and not maintainer", "tests/unit", "tests/contract"]
        done = subprocess.run([*tests, *chosen], cwd=ROOT, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()

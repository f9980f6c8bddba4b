"""The tree that is tested: its modules, its tests, and a copy of it that stays as it was while people go on working."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".hypothesis", ".*_cache", "run", "build", "dist", "*.egg-info"
)


TESTS = ("tests/unit", "tests/property", "tests/contract")


@dataclass(frozen=True)
class Project:
    root: Path
    package: str = "flopsd"
    tests: tuple[str, ...] = TESTS  # folders or files

    def copy(self, to: Path) -> None:
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.root, to, ignore=_LEFT_OUT, symlinks=True)

    def modules(self) -> list[str]:
        """Of the package, relative to the root."""
        return self._python(self.package)

    def test_files(self) -> list[str]:
        """The tool's own tests are left out: they plant faults themselves."""
        files = [path for folder in self.tests for path in self._python(folder)]
        return sorted({path for path in files if Path(path).name.startswith("test_") and "mutants" not in path})

    def digests(self) -> dict[str, str]:
        """For each test file a digest of it and of all that it may use."""
        files = set(self.test_files())
        common = hashlib.sha256()
        for path in (*self._python(self.package), *self._python("tests")):
            if path not in files and not path.startswith("tests/mutants/"):
                common.update(path.encode() + b"\0" + (self.root / path).read_bytes() + b"\0")
        found = {}
        for path in sorted(files):
            own = common.copy()
            own.update(path.encode() + b"\0" + (self.root / path).read_bytes())
            found[path] = own.hexdigest()[:20]
        return found

    def _python(self, folder: str) -> list[str]:
        at = self.root / folder
        return sorted(str(path.relative_to(self.root)) for path in ([at] if at.is_file() else at.rglob("*.py")))

"""A PKCS#11 token in software: SoftHSM2 on a folder of the test, its keys made by OpenSC's pkcs11-tool."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

PIN = "4711"
_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)


def module_path() -> str:
    found = next((path for path in _MODULES if Path(path).is_file()), None)
    assert found is not None, f"softhsm2-util is here, its module in none of {_MODULES}"
    return found


@dataclass(frozen=True)
class Tokens:
    """Tokens in one folder. A process sees them that has `environment` when it loads the module."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    @classmethod
    def new(cls, folder: Path) -> Tokens:
        (folder / "tokens").mkdir(parents=True)
        (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        return cls(folder)

    def initialise(self, token: str) -> None:
        self._run("softhsm2-util", "--init-token", "--free", "--label", token, "--pin", PIN, "--so-pin", "0815")

    def new_key(self, token: str, label: str, id_hex: str, kind: str = "EC:prime256v1") -> None:
        self.tool(token, "--keypairgen", "--key-type", kind, "--label", label, "--id", id_hex)

    def tool(self, token: str, *arguments: str) -> None:
        self._run("pkcs11-tool", "--module", module_path(), "--token-label", token, "--login", "--pin", PIN, *arguments)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env={"PATH": "/usr/sbin:/usr/bin:/bin", **self.environment}, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"

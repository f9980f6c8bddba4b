"""The stand-in for dcgm-exporter as a program of its own, with the same process name as the original."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.support.neuron import alive

_STANDIN = Path(__file__).parent.parent / "standin" / "dcgm-exporter"


class Installed:
    """An executable in a folder whose files set its behaviour."""

    def __init__(self, folder: Path, interpreter: str = sys.executable) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / "dcgm-exporter"
        body = _STANDIN.read_text(encoding="utf-8").split("\n", 1)[1]
        self.path.write_text(f"#!{interpreter}\n{body}", encoding="utf-8")
        self.path.chmod(0o755)

    def becomes(self, mode: str) -> None:
        """Set the mode: `refused`, `in_use`, `unsupported`, `paused` or `hang`; in any other mode it serves."""
        whole = self.folder / "mode.new"
        whole.write_text(mode, encoding="utf-8")
        whole.replace(self.folder / "mode")

    @property
    def starts(self) -> list[dict[str, Any]]:
        file = self.folder / "starts"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def pids(self) -> list[int]:
        return [int(start["pid"]) for start in self.starts]

    @property
    def is_gone(self) -> bool:
        return not any(alive(pid) for pid in self.pids)

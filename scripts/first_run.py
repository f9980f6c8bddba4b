"""`make run`: meters this machine for a while, shows, seals and verifies the run, and writes its HTML report."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ADDRESS = re.compile(r"metrics at (\S+)/metrics$")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", default="10")
    parser.add_argument("--dir", default="run")
    arguments = parser.parse_args()
    flopsd = [sys.executable, "-m", "flopsd"]
    folder = Path(arguments.dir).absolute()
    ledger, page = folder / "ledger.json", folder / "report.html"

    print("What can be metered here:", flush=True)
    replay = subprocess.run([*flopsd, "doctor"], check=False).returncode != 0
    if replay:
        print(
            "\nNo accelerator here: replaying the bundled recording. This shows the path, it measures nothing.\n",
            flush=True,
        )
    code, address = _meter(
        [*flopsd, "run", "--progress", "--duration", arguments.seconds, "--state-dir", str(folder / "state"),
         "--ledger", str(ledger), "--checkpoint", "10", *(["--source", "replay"] if replay else [])]
    )  # fmt: skip
    if code:
        return code
    print(f"\n(flopsd is {Path(sys.executable).parent / 'flopsd'} here.) Verifying it, offline:", flush=True)
    with_key = [str(ledger), "--key", str(folder / "ledger.pub"), *(["--allow-replay"] if replay else [])]
    code = subprocess.run([*flopsd, "verify", *with_key], check=False).returncode
    if code:
        return code
    code = subprocess.run(
        [*flopsd, "report", *with_key, "--format", "html", "--output", str(page)], check=False
    ).returncode
    if code:
        return code
    if address:
        print(f"\nlive page    {address} (while it ran; `make run RUN_SECONDS=600` leaves time to look)", end="")
    print(f"\nHTML report  {page}", flush=True)
    return 0


def _meter(command: Sequence[str]) -> tuple[int, str]:
    """The exit code, and the address named in the log; empty if the port was taken."""
    address = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while True:
            try:
                if not (line := process.stderr.readline()):
                    break
                sys.stderr.write(line)
                sys.stderr.flush()
                if found := _ADDRESS.search(line):
                    address = found[1]
                    print(f"The live page until the run ends, or Ctrl-C: {address}", flush=True)
            except KeyboardInterrupt:  # flopsd received it too; it seals and reports that
                continue
    return process.returncode, address


if __name__ == "__main__":
    sys.exit(main())

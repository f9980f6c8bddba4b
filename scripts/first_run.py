"""`make run`: meter what is here for a while, show it, seal it, verify it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", default="20")
    parser.add_argument("--dir", default="run")
    arguments = parser.parse_args()
    flopsd = [sys.executable, "-m", "flopsd"]
    folder = Path(arguments.dir).absolute()
    ledger = folder / "ledger.json"

    print("What can be metered here:", flush=True)
    replay = subprocess.run([*flopsd, "doctor"], check=False).returncode != 0
    if replay:
        print(
            "\nNo accelerator here: replaying the bundled recording. This shows the path, it measures nothing.\n",
            flush=True,
        )
    code = subprocess.run(
        [*flopsd, "run", "--progress", "--duration", arguments.seconds, "--state-dir", str(folder / "state"),
         "--ledger", str(ledger), "--checkpoint", "10", *(["--source", "replay"] if replay else [])],
        check=False,
    ).returncode  # fmt: skip
    if code:
        return code
    print(f"\n(flopsd is {Path(sys.executable).parent / 'flopsd'} here.) Verifying it, offline:", flush=True)
    return subprocess.run(
        [*flopsd, "verify", str(ledger), "--key", str(folder / "ledger.pub"), *(["--allow-replay"] if replay else [])],
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())

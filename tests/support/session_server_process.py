"""A session server as a process that can be killed: `python -m tests.support.session_server_process SOCKET`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from flopsd.core.session_protocol import Event
from flopsd.daemon.session_server import SessionServer
from flopsd.system.clock import SystemClock


def main() -> None:

    def post(event: Event) -> None:
        print(json.dumps({"event": type(event).__name__, **asdict(event)}), flush=True)

    listener = SessionServer(Path(sys.argv[1]), (), post, SystemClock())
    listener.start()
    print("listening", flush=True)
    sys.stdin.read()
    listener.stop()


if __name__ == "__main__":
    main()

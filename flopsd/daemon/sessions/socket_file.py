"""The Unix socket for training processes: its file is created for this daemon, and never taken from a running one."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from flopsd.errors import ListenError
from flopsd.system.file_presence import exists


def listen_on(path: Path, *, mode: int, backlog: int) -> socket.socket:
    """Return a listening socket at `path` with the file mode `mode`; remove one that a dead daemon left there. Raises
    ListenError."""
    try:
        if not exists(path.parent):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.chmod(0o700 if mode == 0o600 else 0o711)  # to reach the socket, one must enter the folder
        if path.parent.stat().st_uid not in (0, os.geteuid()):
            raise ListenError(
                f"{path.parent} belongs to another user, who could replace the socket by one of their own",
                hint="give --client-socket a path in a folder of your own",
            )
        _remove_stale(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as fault:
        raise ListenError(f"cannot use {path}: {fault.strerror}") from fault
    try:
        os.fchmod(listening.fileno(), 0o600)  # bind creates the file with this mode: it is never open to more users
        listening.bind(str(path))
        path.chmod(mode)
        listening.listen(backlog)
    except OSError as fault:
        listening.close()
        # Some file systems, such as sshfs, hold no sockets.
        hint = "give --client-socket a path on a disk of this machine, such as /run/flopsd/client.sock"
        raise ListenError(f"cannot listen on {path}: {fault.strerror}", hint=hint) from fault
    return listening


def _remove_stale(path: Path) -> None:
    """Remove the socket of a dead daemon. Raises ListenError if there is anything else at `path`."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"{path} exists and is not a socket", hint="give another --client-socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its queue is full: that daemon is alive
    raise ListenError(
        f"another daemon listens on {path}", hint="stop that one, or give this one another --client-socket"
    )

"""The path of the Unix socket between training processes and daemon, computed identically on both sides."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flopsd.errors import ConfigError
from flopsd.settings.platform import default_state_dir
from flopsd.system.sha256 import hex_sha256

SOCKET_NAME, OFF = "client.sock", "off"
VARIABLE = "FLOPSD_SOCKET"  # read by the training process
LONGEST_PATH_BYTES = 107  # sun_path on Linux, without its NUL


def fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_PATH_BYTES


def socket_path(setting: str | None, state_dir: Path, *, shared: bool = False) -> Path | None:
    """Where the daemon listens; None for `off`. Raises ConfigError for a given path that is too long for a socket. The
    default is in the state folder. If that path is too long, or processes of another user connect (`shared`), who
    cannot enter that folder, the default is a short path derived from it."""
    if setting == OFF:
        return None
    path = Path(os.path.abspath(setting if setting is not None else state_dir / SOCKET_NAME))
    if fits(path) and not (shared and setting is None):
        return path
    if setting is not None:
        raise ConfigError(
            [f"--client-socket: {path} is longer than the {LONGEST_PATH_BYTES} bytes of a Unix socket's path"],
            hint="give a shorter one, such as /run/flopsd/client.sock",
        )
    return _short_folder(shared=shared) / f"{hex_sha256(os.fsencode(path))[:16]}.sock"


def client_socket_candidates(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """The paths at which a training process looks for the daemon, in this order."""
    named = environment.get(VARIABLE)
    if named:
        return (Path(os.path.abspath(named)),)
    state = environment.get("FLOPSD_STATE_DIR")
    own = socket_path(environment.get("FLOPSD_CLIENT_SOCKET"), Path(state) if state else default_state_dir(environment))
    return tuple(dict.fromkeys(path for path in (own, Path("/run/flopsd") / SOCKET_NAME) if path is not None))


def _short_folder(*, shared: bool) -> Path:
    """A folder with a short path that no other user can write to. The daemon creates it."""
    user, name = os.geteuid(), "flopsd-jobs" if shared else "flopsd"
    for folder in ([] if shared else [Path("/run/user") / str(user)]) + [Path("/run")]:
        if os.access(folder, os.W_OK) and folder.stat().st_uid == user:
            return folder / name
    return Path(tempfile.gettempdir()) / f"{name}-{user}"

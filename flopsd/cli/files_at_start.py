"""The settings files as `flopsd exec` read them. They may be removed or edited while the job runs; a restarted daemon,
and the process that seals at the end, then use copies of the original contents."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path

from flopsd.core.companions import MAX_COMPANION_BYTES, PEAKS, POLICY, companion_name
from flopsd.settings.data_files import has_digest, own_policies
from flopsd.settings.schema import Settings
from flopsd.system.atomic_files import replace_file
from flopsd.system.nameless_file import nameless_file
from flopsd.system.regular_files import read_at_most
from flopsd.system.sha256 import hex_sha256

log = logging.getLogger("flopsd")


def remember(settings: Settings, config: Path | None, state: Path) -> int:
    """A descriptor for `use_files_at_start`, for processes that inherit it. It holds the names and bytes of the files,
    and the state folder. Raises OSError."""
    files = [*own_policies(settings.policies), *(Path(one) for one in (settings.peaks, config) if one is not None)]
    given = {
        "state": str(state),
        "config": None if config is None else str(config),
        "peaks": settings.peaks,
        "policies": settings.policies,
        "read": {str(file): read_at_most(file, MAX_COMPANION_BYTES).hex() for file in files},
    }
    fd = nameless_file("flopsd-files")
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(json.dumps(given).encode())
    return fd


def use_files_at_start(arguments: argparse.Namespace, *, logged: bool = True) -> None:
    """Point --config, --peaks and --policy to the files that `remember` read; for a file that has changed since, to a
    copy in the state folder, which is `logged`."""
    given = json.loads(os.pread(arguments.files_at_start, os.fstat(arguments.files_at_start).st_size, 0))

    def as_read(kind: str, file: str | None) -> str | None:
        content = None if file is None else given["read"].get(str(Path(file)))
        if file is None or content is None:  # a packaged policy
            return file
        data = bytes.fromhex(content)
        sha256 = hex_sha256(data)
        if has_digest(Path(file), sha256):
            return file
        copy = Path(given["state"], companion_name(kind, sha256))
        try:
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(copy, data, 0o600)
        except OSError as fault:
            log.error(
                "%s was changed or cannot be read since the job started, and its content from then cannot be saved: %s",
                file,
                fault,
            )
            return file
        if logged:
            log.warning(
                "%s was changed or cannot be read since the job started; flopsd goes on with its content from then: %s",
                file,
                copy,
            )
        return str(copy)

    arguments.config = as_read("settings", given["config"])
    arguments.peaks = as_read(PEAKS, given["peaks"])
    arguments.policies = [as_read(POLICY, one) for one in given["policies"]] or None

"""The secrets that the codes of a daemon's journals are made with, and who keeps them."""

from __future__ import annotations

import os

from flopsd.journal.codes import SECRET_BYTES, CodeKey


class CodeSecrets:
    """One secret for each journal that the daemon writes. The first comes from the launcher, which keeps it: here it is
    overwritten once its key is made. Without a launcher, and for every further journal, the daemon makes a secret and
    must keep it until it is disclosed."""

    def __init__(self, of_launcher: bytearray | None) -> None:
        self._of_launcher = of_launcher
        self.kept: list[bytes] = []

    @property
    def not_used(self) -> list[bytearray]:
        """The launcher's secret, until a key is made from it."""
        return [] if self._of_launcher is None else [self._of_launcher]

    def key(self, start: int) -> CodeKey:
        """Return the key for daemon start number `start` of its journal."""
        secret, self._of_launcher = self._of_launcher, None
        if secret is None:
            self.kept.append(os.urandom(SECRET_BYTES))
            return CodeKey(self.kept[-1], start)
        key = CodeKey(secret, start)
        secret[:] = bytes(SECRET_BYTES)
        return key


def read_secret(pipe: int | None) -> bytearray | None:
    """Return the secret that the launcher wrote to the pipe first; None without a launcher, or if it has ended."""
    secret = bytearray(SECRET_BYTES)
    return secret if pipe is not None and os.readv(pipe, [secret]) == SECRET_BYTES else None

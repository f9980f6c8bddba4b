"""A connection of a training process, and how much it may send."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from flopsd.core.session_protocol import MAX_LINE_BYTES, Conversation
from flopsd.system.clock import NS_PER_S

MESSAGES_A_SECOND = 50  # of one session
BYTES_A_SECOND = 4 * MAX_LINE_BYTES
LAST_SECONDS = 10  # of the allowance of each session: what is read at the end
HELLO_SECONDS = 10

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Allowance:
    """A limit of `units` per second, counted from its first use in each second."""

    def __init__(self, units: int, now_ns: int) -> None:
        self._units, self._left, self._since_ns = units, units, now_ns

    def spend(self, units: int, now_ns: int) -> bool:
        """Use up `units`; return whether any are left."""
        if now_ns - self._since_ns >= NS_PER_S:
            self._left, self._since_ns = self._units, now_ns
        self._left -= units
        return self._left > 0

    @property
    def renewed_ns(self) -> int:
        return self._since_ns + NS_PER_S


class Peer:
    """One connection."""

    def __init__(self, connection: socket.socket, now_ns: int) -> None:
        self.connection = connection
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self.talk = Conversation(pid or None, uid)  # the kernel gives pid 0 for a process of another namespace
        self.buffer = bytearray()
        self.hello_by_ns = now_ns + HELLO_SECONDS * NS_PER_S
        self.messages, self.bytes = Allowance(MESSAGES_A_SECOND, now_ns), Allowance(BYTES_A_SECOND, now_ns)

    def answer(self, line: bytes) -> None:
        """Raises OSError if the peer does not read its answers."""
        if self.connection.send(line) != len(line):
            raise OSError("the peer does not read its answers")

    def end(self, now_ns: int) -> None:
        """Let the process send no more, which it would take for received, and have what it has sent read in one go."""
        self.messages, self.bytes = (
            Allowance(LAST_SECONDS * a_second, now_ns) for a_second in (MESSAGES_A_SECOND, BYTES_A_SECOND)
        )
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)

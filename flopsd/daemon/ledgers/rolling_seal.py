"""Rolling seals: at intervals a child process seals the journal so far; the daemon only starts and reaps it.

The libraries that sign are never loaded into the daemon. There is one child at a time, killed when it hangs. Whatever
happens to it, metering goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from flopsd.daemon.ledgers.child import ChildProcess, Ended, is_new_fault
from flopsd.daemon.ledgers.key_check import RETRY_SECONDS, KeyCheck
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.telemetry.snapshot import JournalState

log = logging.getLogger("flopsd")
NEVER_NS = 1 << 62
CLOSED_ONLY = "--closed-only"  # flag of the child: seal closed segments, but not the run so far
HURRY_SECONDS = 10.0
# Exit codes of the child: the ledger is sealed here, but could not be copied; the key cannot sign.
SEALED_NOT_COPIED, NOT_SIGNED = 5, 6


class RollingSeals:
    """Starts `command` at most once every `every_seconds`. One thread calls it."""

    def __init__(
        self, command: Sequence[str], every_seconds: float | None, checkpoint_seconds: float, clock: Clock, *,
        overdue: bool, head: Callable[[], object], copies: bool = False, key: KeyCheck | None = None,
        files: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """`every_seconds`: None: only closed segments are sealed.

        `checkpoint_seconds`: the longest time between two checkpoints. `overdue`: seal after the first one, since an
        earlier daemon start may never have been sealed. `head` returns what the journal contains now. `copies`: whether
        the child copies the ledger anywhere. `key`: the check that notes whether the key signed. `files`: open file
        descriptors that the child inherits."""
        self.child = ChildProcess(command, "the sealing process", clock, files=files)
        self._clock, self._head = clock, head
        self._closed_only = every_seconds is None
        self._every_ns = NEVER_NS if every_seconds is None else round(every_seconds * NS_PER_S)
        self._slack_ns = round(checkpoint_seconds * NS_PER_S)
        self._due_ns = clock.boottime_ns() + (0 if overdue else self._every_ns)
        self._fresh = False  # there is a checkpoint since the last child was started
        self._fault, self._key = "", key
        # Safe to read from any thread.
        self.state = JournalState(0, None if self._closed_only else self._every_ns, copies=copies)

    def checkpointed(self) -> None:
        """Note that a checkpoint is durable."""
        self._fresh = True

    def closed(self) -> None:
        """Note that a segment is closed, and waits for its seal."""
        self._fresh, self._due_ns = True, self._clock.boottime_ns()

    def each_tick(self) -> None:
        """Start, reap or kill the child. A seal covers the checkpoints in the journal, so a child starts right after
        the last checkpoint before a seal is due: no more than `every_seconds` of a run are ever unsealed, plus the time
        that sealing takes."""
        if (ended := self.child.ended()) is not None:
            self._ended(ended)
        elif self.is_due:
            self._start(self._clock.boottime_ns())

    @property
    def is_due(self) -> bool:
        """Whether it is time to start a child."""
        is_time = self._clock.boottime_ns() + self._slack_ns >= self._due_ns
        return self._fresh and is_time and not self.child.is_busy

    def hurry(self) -> bool:
        """Seal now and often from now on: a kill may be near. Return whether a seal is due and needs a checkpoint."""
        now_ns, hurry_ns = self._clock.boottime_ns(), round(HURRY_SECONDS * NS_PER_S)
        if self._every_ns > hurry_ns and not self._closed_only:
            self._every_ns, self._slack_ns, self._due_ns = hurry_ns, 0, now_ns
            self.state = replace(self.state, seal_every_ns=hurry_ns)
        return not self.child.is_busy and now_ns >= self._due_ns and not self._closed_only

    def _start(self, now_ns: int) -> None:
        self._fresh, self._started_ns, self._due_ns = False, now_ns, now_ns + self._every_ns
        self.child.start(*([CLOSED_ONLY] if self._closed_only else []), "--head", str(self._head()))

    def _ended(self, ended: Ended) -> None:
        if ended.code == NOT_SIGNED and self._key is not None:
            self.state = replace(self.state, seal_failures=self.state.seal_failures + 1)
            self._key.not_signed(ended.err)
            if self._closed_only:
                self._fresh, self._due_ns = True, self._clock.boottime_ns() + round(RETRY_SECONDS * NS_PER_S)
            return
        if ended.code not in (0, SEALED_NOT_COPIED):
            self._failed(ended.err)
            return
        if self._key is not None:
            self._key.sealed()
        sealed_ns = self._clock.boottime_ns()
        self.state = replace(self.state, last_seal_ns=sealed_ns)
        if ended.code == SEALED_NOT_COPIED:
            self._not_copied(ended.err)
            return
        self.state = replace(self.state, last_copy_ns=sealed_ns if self.state.copies else None, seal_fault="")
        if ended.err:
            log.warning("%s", ended.err)
        if self._fault:
            log.warning("rolling seals succeed again")
        self._fault = ""

    def _failed(self, why: str) -> None:
        failures = self.state.seal_failures + 1
        self.state = replace(self.state, seal_failures=failures, seal_fault=f"NO ROLLING SEAL: {why}")
        self._retry_soon(
            "NO ROLLING SEAL: %s; metering goes on and the seal is tried again in %d s; if it keeps failing, check "
            "--key and the disk of --ledger",
            why,
        )

    def _not_copied(self, why: str) -> None:
        fault = why[max(0, why.find("NOT COPIED")) :]  # without other messages of the seal
        self.state = replace(self.state, copy_failures=self.state.copy_failures + 1, seal_fault=fault)
        self._retry_soon("%s; the ledger is sealed on this machine; seal and copy are repeated in %d s", why)

    def _retry_soon(self, text: str, why: str) -> None:
        self._fresh = self._fresh or self._closed_only
        retry_ns = self._started_ns + min(self._every_ns, round(RETRY_SECONDS * NS_PER_S))
        self._due_ns = min(self._due_ns, retry_ns)
        if is_new_fault(why, self._fault):
            log.error(text, why, max(0, self._due_ns - self._clock.boottime_ns()) // NS_PER_S)
        self._fault = why

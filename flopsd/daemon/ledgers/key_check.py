"""Checks in a child process, from the start of the run, whether its key can sign. Metering never waits for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import get_args

from flopsd.attestation.signing.keys import check_key, default_key
from flopsd.daemon.ledger_places import state_dir
from flopsd.daemon.ledgers.child import ChildProcess, Ended, is_new_fault
from flopsd.errors import KeyFault, SigningKeyError
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.file_presence import exists
from flopsd.telemetry.snapshot import KeyState

log = logging.getLogger("flopsd")
RETRY_SECONDS = 300.0
RECHECK_SECONDS = 3600.0  # if no rolling seals show that the key still signs


class KeyCheck:
    """Starts `command`, `flopsd key check --json`, until the key signs. One thread calls it. Rolling seals wait while
    it runs and while the key cannot sign, so that a fault is logged once, and two processes never give a token the same
    wrong PIN."""

    def __init__(
        self, command: Sequence[str], retry_seconds: float, recheck_seconds: float | None, clock: Clock, *, due: bool,
        files: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """`recheck_seconds`: after that time, check again a key that signs. `due`: check at once; else when a seal
        fails. `files`: open file descriptors that the process inherits."""
        self.child = ChildProcess(command, "the process that checks the key", clock, output=True, files=files)
        self._clock = clock
        self._retry_ns = round(retry_seconds * NS_PER_S)
        self._recheck_ns = None if recheck_seconds is None else round(recheck_seconds * NS_PER_S)
        self._due_ns = clock.boottime_ns() if due else None
        self._seal_fault = ""
        self._is_not_made = False  # the next seal makes the key: only that shows whether it can
        self.state = KeyState()  # safe to read from any thread

    @property
    def is_in_the_way(self) -> bool:
        """Whether seals must wait now."""
        return self.child.is_busy or (self.state.usable is False and not self._is_not_made)

    def each_tick(self) -> None:
        """Start, reap or kill the child."""
        if (ended := self.child.ended()) is not None:
            self._take(ended)
        elif self._due_ns is not None and self._clock.boottime_ns() >= self._due_ns and not self.child.is_busy:
            self._due_ns = None
            self.child.start()

    def sealed(self) -> None:
        """Note that a rolling seal was signed."""
        if self.state.usable is False:
            log.warning("the key signs: a rolling seal was made")
        self.state = KeyState(usable=True)

    def not_signed(self, why: str) -> None:
        """Check the key now, since a rolling seal could not be signed."""
        self._seal_fault, self._due_ns = why, self._clock.boottime_ns()

    def failed(self, problem: str, reason: KeyFault = "other") -> None:
        """Note that the key cannot sign, and log it unless that was logged."""
        is_new = is_new_fault(problem, self.state.problem)
        self.state, self._seal_fault, self._is_not_made = KeyState(False, reason, problem), "", False
        if is_new:
            log.error(
                "THE LEDGER WILL NOT BE SEALED unless this is fixed: %s; metering goes on and the journal is kept; the "
                "key is tried again every %d s",
                problem,
                self._retry_ns // NS_PER_S,
            )
        self._due_ns = self._clock.boottime_ns() + self._retry_ns

    def _take(self, ended: Ended) -> None:
        try:
            facts = json.loads(ended.out)
            usable = facts["usable"]
            words = [facts[name] for name in (("is", "keyId") if usable else ("problem", "fix")) if usable is not None]
        except (ValueError, LookupError, TypeError):
            said = ended.err or "the process that checks the key gave no result"
            return self.failed(said, "no_answer" if ended.code is None else "other")
        if ended.said:  # not `err`: for a key that cannot sign, the exit code adds nothing to the answer
            log.warning("%s", ended.said)
        if usable is None:  # no key was made yet: the first seal makes one
            if self._seal_fault:  # or failed to make one
                return self.failed(self._seal_fault)
            self._is_not_made = True
            return None
        if not usable:
            reason = facts.get("reason")
            return self.failed("; ".join(filter(None, words)), reason if reason in get_args(KeyFault) else "other")
        before, seal_fault = self.state.usable, self._seal_fault
        self.state, self._seal_fault = KeyState(usable=True), ""
        if self._recheck_ns is not None:
            self._due_ns = self._clock.boottime_ns() + self._recheck_ns
        if seal_fault:
            log.warning("NO ROLLING SEAL: %s; the key can sign now, and the seal is tried again", seal_fault)
        elif not before:
            log.log(logging.INFO if before is None else logging.WARNING, "the key signs: %s, key id %s", *words)
        return None


def start_key_check(
    settings: Settings, command: Sequence[str], environment: Mapping[str, str], clock: Clock, files: Sequence[int] = ()
) -> KeyCheck | None:
    """Return the check of the key that seals this run; None if the run is not sealed, or there is no command. `files`:
    open file descriptors that its process inherits."""
    if not settings.seal or not command:
        return None
    every = settings.seal_every_seconds
    has_key = settings.key is not None or exists(default_key(state_dir(settings, environment)))
    retry = min(every or RETRY_SECONDS, RETRY_SECONDS)
    check = KeyCheck(command, retry, None if every else RECHECK_SECONDS, clock, due=has_key, files=files)
    try:
        check_key(settings.key, environment)
    except SigningKeyError as fault:  # known without a process
        check.failed(fault.with_hint, fault.reason)
    return check

"""The client of a training process: its declared state, and the thread that sends it to the daemon."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flopsd.client.complaints import Complaints, shown
from flopsd.client.connection import DaemonConnection, RefusedByDaemonError, checked_fact
from flopsd.client.counted_work import PHASES, CountedWork, note_of
from flopsd.client.work_by_run import WorkByRun
from flopsd.core.architecture import why_not_read
from flopsd.core.declarations import phase_from
from flopsd.core.declared_facts import MAX_LEFT_OUT
from flopsd.settings.client_socket import client_socket_candidates
from flopsd.settings.words import words_of
from flopsd.system.clock import NS_PER_S, Clock, SystemClock

log = logging.getLogger("flopsd.client")
BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, REFUSED_SECONDS = 0.2, 5.0, 60.0
SEND_SECONDS = 0.2  # between two sends; a phase that changes after a quiet time is sent at once
WORK_SECONDS = 1.0
# Phase changes kept between two sends: with one message of counters at most 45 a second, less than the daemon reads.
MAX_TRANSITIONS = 8


def connect(path: str | os.PathLike[str] | None = None) -> Client:
    """Return a client of the daemon whose socket is `path`, else $FLOPSD_SOCKET, else the default for this user. Never
    raises and never waits; the connection is made in the background."""
    try:
        paths = client_socket_candidates(os.environ) if path is None else (Path(path),)
    except Exception:
        log.exception(
            "nothing is declared to flopsd: the path of its socket cannot be determined; the training goes on"
        )
        paths = ()
    return Client(paths, SystemClock())


def silent() -> Client:
    """Return a client that declares nothing."""
    return Client((), SystemClock())


class Client:
    """The session of one process. Thread-safe. Calls have no effect in a forked child, nor on a copied or unpickled
    client: a child opens its own."""

    def __init__(self, paths: Sequence[Path], clock: Clock) -> None:
        """`paths`: sockets to try, in this order. Use `connect` for the default ones."""
        self.session = os.urandom(16).hex()
        self._paths, self._clock, self._pid = paths, clock, os.getpid()
        self._lock = threading.RLock()  # reentrant: a signal handler may interrupt a call
        self._facts: dict[str, Any] = {}
        self._unsent_facts: set[str] = set()
        self._phase: str | None = None  # while None, this process does not affect the phase of the run
        self._transitions: deque[str] = deque(maxlen=MAX_TRANSITIONS)
        self._work = CountedWork()
        self._by_run = WorkByRun(self._work, clock.boottime_ns())
        self._complaints = Complaints()
        self._connection: DaemonConnection | None = None
        self._backoff_seconds = BACKOFF_SECONDS
        self._is_served = False  # a daemon has this session open now
        self._closing, self._leaving = threading.Event(), False
        self._others: list[Client] = []
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put is reentrant, unlike Event.set
        self._awake = True
        self._thread = threading.Thread(target=self._run_to_the_end, name="flopsd-client", daemon=True)
        leave = weakref.WeakMethod(self._leave_child)
        os.register_at_fork(after_in_child=lambda: (method := leave()) and method())
        if not paths:
            return
        atexit.register(self.close)
        try:
            self._thread.start()
        except RuntimeError as fault:
            self._complaints.once(f"nothing is declared to flopsd: {fault}; the training goes on")

    def __reduce__(self) -> tuple[Callable[[], Client], tuple[()]]:
        return silent, ()

    def set_phase(self, phase: str | None) -> None:
        """Declare what this process does from now on: a phase such as "train" or "evaluate"; None for undeclared. The
        phases are those of `flopsd.core.declarations.Phase`. While the processes of a job declare different phases, the
        phase of the run is undeclared."""
        if (type(phase) is str and phase == self._phase) or os.getpid() != self._pid:
            return
        try:
            name = phase_from(phase)
        except Exception:  # noqa: BLE001 - see Complaints
            self._complaints.once(f"set_phase: {shown(phase)} is not a phase; phases are {', '.join(sorted(PHASES))}")
            return
        with self._lock:
            if name == self._phase:
                return
            self._phase = name
            self._transitions.append(name)
        self._wake_thread()

    @property
    def facts(self) -> dict[str, Any]:
        """The facts declared so far."""
        return self._facts.copy()  # without the lock, which a forked child may find locked for ever

    @property
    def current_phase(self) -> str | None:
        """The phase that was set last; None before the first."""
        return self._phase

    def now_ns(self) -> int:
        return self._clock.boottime_ns()

    @contextmanager
    def phase(self, phase: str | None) -> Iterator[None]:
        """Set a phase for the duration of a `with` block, then set the previous one again. Blocks nest."""
        before = self._phase
        self.set_phase(phase)
        try:
            yield
        finally:
            self.set_phase(before)

    def declare(self, **facts: object) -> None:
        """Declare facts about the training, such as `method="lora"`. A value of None is ignored. The names and values
        are listed in docs/training-process.md. A fact that is declared again replaces the earlier one."""
        if os.getpid() != self._pid:
            return
        for name, value in facts.items():
            if value is None:
                continue
            try:
                checked = checked_fact(name, value)
            except Exception as fault:  # noqa: BLE001 - see Complaints
                self._complaints.ignored("declare", fault)
                continue
            if name == "model_config" and (why := why_not_read(checked)) is not None:
                self._complaints.once(f"declare: flopsd cannot read this model_config: {words_of(why)}; {why.hint}")
            with self._lock:
                if name not in self._facts or self._facts[name] != checked:
                    self._facts[name] = checked
                    self._unsent_facts.add(name)
            self._wake_thread()

    def count(self, phase: str, **counters: int) -> None:
        """Add work to the counters of `phase`, such as `tokens`, `sequences` and `steps`, all whole numbers. `phase`
        need not be the current one. The counters are listed in docs/training-process.md."""
        try:
            self._work.add(note_of(phase, counters))
        except Exception as fault:  # noqa: BLE001 - see Complaints
            self._complaints.ignored("count", fault)

    def counting(self, phase: str, **counters: int) -> Callable[[], None]:
        """Return a function that counts this work each time it is called, faster than `count` for repeated work."""
        try:
            note = note_of(phase, counters)
        except Exception as fault:  # noqa: BLE001 - see Complaints
            self._complaints.ignored("count", fault)
            return lambda: None
        return functools.partial(self._work.add, note)

    def another_session(self) -> Client:
        """Return another session with the same daemon, for another model of this process. It ends with this one."""
        if os.getpid() != self._pid:
            return silent()
        other = Client(self._paths, self._clock)
        atexit.unregister(other.close)  # this one closes it
        other._by_run.behind_until_ns = self._by_run.behind_until_ns
        if not self._is_served:
            other._by_run.since_ns = self._by_run.since_ns  # its first work may have begun before this call
        self._others.append(other)
        return other

    def close(self, seconds: float = 1.0) -> None:
        """Send the rest and close the session, within `seconds`. Called when the interpreter exits, too, and then also
        waits for what an earlier call left to send."""
        if os.getpid() != self._pid:
            return
        self._leave()
        until_ns = self.now_ns() + round(seconds * NS_PER_S)
        for other in self._others:
            other.close(max(0.0, (until_ns - self.now_ns()) / NS_PER_S))
        if self._thread.is_alive():
            self._thread.join(max(0.0, (until_ns - self.now_ns()) / NS_PER_S))
        else:
            atexit.unregister(self.close)

    def _leave(self) -> None:
        """Let the threads of this session and of its others send the rest and end."""
        if not self._leaving:
            self._leaving = True  # Event.set is not reentrant, and a signal handler may interrupt this call
            for other in self._others:
                other._leave()
            self._closing.set()
            self._wake.put(None)

    def _leave_child(self) -> None:
        """In a forked child: count nothing, and close the connection, which must not be open after the parent's end."""
        self._work.stop()
        self._close_connection()

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _wake_thread(self) -> None:
        """Make the thread send what changed, if it waits for changes."""
        if not self._awake:
            self._awake = True
            self._wake.put(None)

    # The methods below run in the thread.

    def _run_to_the_end(self) -> None:
        self._run()
        atexit.unregister(self.close)  # which keeps this client alive

    def _run(self) -> None:
        while True:
            last = self._closing.is_set()
            refused_seconds = 0.0
            try:
                self._serve_session()
                return
            except (OSError, ValueError) as fault:
                log.debug("no daemon: %s", fault)
            except RefusedByDaemonError as fault:
                self._complaints.once(
                    f"flopsd's daemon refused this process: {fault}; its declarations are not recorded, and the client "
                    f"tries again every {REFUSED_SECONDS:.0f} s"
                )
                refused_seconds = REFUSED_SECONDS
            except Exception:
                log.exception("internal error in flopsd's client: nothing more is declared; the training goes on")
                return
            finally:
                self._close_connection()
                self._connection, self._is_served = None, False
            if last:
                return
            self._clock.wait(self._closing, refused_seconds or self._backoff_seconds)
            self._backoff_seconds = min(2 * self._backoff_seconds, BACKOFF_SECONDS_MAX)

    def _serve_session(self) -> None:
        """Send everything, then each change, until closed. Raises OSError when the daemon goes away."""
        daemon = self._connection = DaemonConnection()  # before it opens, so that a forked child can close it
        daemon.open(self._paths)
        run_key, is_known, metered_since_ns = daemon.hello(self.session, self._clock)
        self._by_run.meet(run_key, metered_since_ns, self.now_ns(), is_known=is_known)
        self._is_served = True
        with self._lock:
            self._unsent_facts = {*self._facts, *(fact for fact, words in self._by_run.left_out.items() if words)}
            self._transitions.clear()
            if self._phase is not None:
                self._transitions.append(self._phase)
        self._backoff_seconds = BACKOFF_SECONDS
        log.info("connected to flopsd's daemon at %s", daemon.path)
        while True:
            closing = self._closing.is_set()
            self._send_changes(daemon)
            if closing:
                daemon.bye()
                return
            self._clock.wait(self._closing, SEND_SECONDS)
            self._await_change(WORK_SECONDS - SEND_SECONDS)
            if (error := daemon.error()) is not None:
                self._complaints.once(f"flopsd's daemon rejected a declaration: {error}")

    def _await_change(self, seconds: float) -> None:
        self._awake = False
        if not self._closing.is_set() and not self._unsent_facts and not self._transitions:
            with suppress(queue.Empty):
                self._wake.get(timeout=seconds)
        self._awake = True
        with suppress(queue.Empty):
            while True:
                self._wake.get_nowait()

    def _facts_to_send(self) -> dict[str, Any]:
        facts = {name: self._facts.get(name, {}) for name in self._unsent_facts}
        for fact, left_out in self._by_run.left_out.items():
            if fact in facts:
                more = {phase: [words, *facts[fact].get(phase, ())][:MAX_LEFT_OUT] for phase, words in left_out.items()}
                facts[fact] = {**facts[fact], **more}
        return facts

    def _send_changes(self, daemon: DaemonConnection) -> None:
        before = self._by_run.left_out
        work = self._by_run.changed(self.now_ns())
        counted_ns = self.now_ns()
        now = self._by_run.left_out
        with self._lock:
            self._unsent_facts.update(fact for fact in now if now[fact] != before[fact])
            facts = self._facts_to_send()
            self._unsent_facts.clear()
            transitions = list(self._transitions)
            self._transitions.clear()
        for name, value in sorted(facts.items()):
            daemon.send("declare", facts={name: value})
        for phase in transitions:
            daemon.send("phase", phase=phase)
        if work:
            daemon.send("work", work=work)
            self._by_run.sent(work, counted_ns)

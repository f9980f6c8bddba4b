"""What a training process calls: which phase it is in, what it trains and how, how much work it did.

    client = flopsd.client.connect()
    client.declare(method="lora", model_config=model.config.to_dict())
    client.set_phase("train")
    client.count("train", tokens=batch.numel(), sequences=len(batch), steps=1)
    with client.phase("evaluate"):
        ...

Nothing here raises into the training or waits for the daemon. The calls change the state of this object; a thread
of its own tells the daemon, and tells all of it again to one that was started anew. Without a daemon nothing
happens. What was declared wrongly is logged once, by the logger `flopsd.client`, and left out.
"""

from __future__ import annotations

import atexit
import json
import logging
import operator
import os
import queue
import socket
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flopsd import __version__
from flopsd.core.declarations import COUNTERS, Phase, facts_from, phase_from
from flopsd.core.session_protocol import (
    MAX_LINE_BYTES,
    PROTOCOL,
    Conversation,
    FactsDeclared,
    RefusedError,
)
from flopsd.settings.client_socket import client_socket_candidates
from flopsd.system.clock import NS_PER_S, Clock, SystemClock

log = logging.getLogger("flopsd.client")
ANSWER_SECONDS = 5.0
CLOSE_SECONDS = 1.0
BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, REFUSED_SECONDS = 0.2, 5.0, 60.0
TELL_SECONDS = 0.2  # between tellings; a phase that changes after a quiet time is told at once
WORK_SECONDS = 1.0
# Transitions kept between two tellings: 40 a second at most, below what the daemon reads of one process.
MAX_TRANSITIONS = 8
_PHASES = frozenset(phase.value for phase in Phase)
_COUNTERS = frozenset(COUNTERS)


def connect(path: str | os.PathLike[str] | None = None) -> Client:
    """A client of the daemon at `path`, else at $FLOPSD_SOCKET, else at the usual places. Never raises, never waits."""
    try:
        places = client_socket_candidates(os.environ) if path is None else (Path(path),)
    except Exception:
        log.exception("flopsd is not told anything: where its daemon listens cannot be found out")
        places = ()
    return Client(places, SystemClock())


class _RefusedByDaemonError(Exception):
    """The daemon answered hello with an error."""


class Client:
    """One session of this process. Thread-safe; silent in processes that were forked off."""

    def __init__(self, places: Sequence[Path], clock: Clock) -> None:
        """`places` are tried in their order."""
        self.session = os.urandom(16).hex()
        self._places, self._clock, self._pid = places, clock, os.getpid()
        self._lock = threading.RLock()  # reentrant: a signal handler may call while its thread is in here
        self._facts: dict[str, Any] = {}
        self._untold_facts: set[str] = set()
        self._phase: str | None = None  # until it names one, this process has no say in the phase
        self._transitions: deque[str] = deque(maxlen=MAX_TRANSITIONS)
        self._added: deque[tuple[str, dict[str, int]]] = deque()
        self._adding = False
        self._work: dict[str, dict[str, int]] = {}
        self._untold_work = False
        self._work_told_ns = 0
        self._complaints: set[str] = set()
        self._socket: socket.socket | None = None
        self._backoff_seconds = BACKOFF_SECONDS
        self._closing, self._leaving = threading.Event(), False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put is reentrant, unlike Event.set
        self._awake = True
        self._thread = threading.Thread(target=self._run, name="flopsd-client", daemon=True)
        self._begin()

    def set_phase(self, phase: str | None) -> None:
        """Say what this process does from now on: a `Phase`, or None for undeclared."""
        if os.getpid() != self._pid:
            return
        try:
            name = phase_from(phase)
        except (ValueError, TypeError):
            self._complain(f"{phase!r:.60} is no phase; they are {', '.join(sorted(_PHASES))}")
            return
        with self._lock:
            if name == self._phase:
                return
            self._phase = name
            self._transitions.append(name)
        self._stir()

    @property
    def current_phase(self) -> str | None:
        """What was named last; None before anything was."""
        return self._phase

    @contextmanager
    def phase(self, phase: str | None) -> Iterator[None]:
        """Be in a phase for the length of a block, then in the one before again. Blocks nest."""
        before = self._phase
        self.set_phase(phase)
        try:
            yield
        finally:
            self.set_phase(before)

    def declare(self, **facts: object) -> None:
        """State facts by the names in docs/training-process.md; None leaves a fact undeclared."""
        if os.getpid() != self._pid:
            return
        for name, value in facts.items():
            if value is None:
                continue
            try:
                checked = _checked(name, value)
            except (ValueError, TypeError, RecursionError) as fault:
                self._complain(f"not declared: {fault}")
                continue
            with self._lock:
                if name not in self._facts or self._facts[name] != checked:
                    self._facts[name] = checked
                    self._untold_facts.add(name)
            self._stir()

    def count(self, phase: str, **counters: int) -> None:
        """Add to the counters of `phase`, whatever phase the process is in: work that is done since the last call."""
        if os.getpid() != self._pid:
            return
        try:
            if phase not in _PHASES or not counters.keys() <= _COUNTERS:
                raise ValueError(f"a phase is {', '.join(sorted(_PHASES))}; a counter {', '.join(COUNTERS)}")
            added = {name: operator.index(value) for name, value in counters.items()}
            if any(value < 0 for value in added.values()):
                raise ValueError("work is never taken back")
        except (ValueError, TypeError) as fault:
            self._complain(f"not counted: {fault}")
            return
        self._added.append((Phase(phase).value, added))
        self._add_up()

    def _add_up(self) -> None:
        """Take in what was counted. A signal handler that counts meanwhile leaves it to who is at it."""
        with self._lock:
            if self._adding:
                return
            self._adding = True
            try:
                while self._added:
                    phase, added = self._added.popleft()
                    mine = self._work.setdefault(phase, {})
                    for name, value in added.items():
                        mine[name] = mine.get(name, 0) + value
                    self._untold_work = True
            finally:
                self._adding = False

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Tell what is untold and take leave, within `seconds`. Done at the interpreter's exit by itself."""
        if os.getpid() != self._pid or self._leaving:
            return
        self._leaving = True  # a signal handler may call while its thread is in here, and Event.set is not reentrant
        atexit.unregister(self.close)
        self._closing.set()
        self._wake.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _begin(self) -> None:
        if not self._places:
            return
        # A forked child shares the connection: it must not keep it open when this process is gone.
        drop = weakref.WeakMethod(self._drop_in_child)
        os.register_at_fork(after_in_child=lambda: (method := drop()) and method())
        atexit.register(self.close)
        try:
            self._thread.start()
        except RuntimeError as fault:
            self._complain(f"flopsd is not told anything: {fault}")

    def _drop_in_child(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _stir(self) -> None:
        """Have the thread tell what changed, where it waits for that."""
        if not self._awake:
            self._awake = True
            self._wake.put(None)

    def _complain(self, what: str) -> None:
        if what not in self._complaints and len(self._complaints) < 16:
            self._complaints.add(what)
            log.warning("%s", what)

    # What follows runs in the thread.

    def _run(self) -> None:
        while True:
            last = self._closing.is_set()
            pause = self._backoff_seconds
            try:
                self._talk()
                return
            except (OSError, ValueError) as fault:
                log.debug("no daemon: %s", fault)
            except _RefusedByDaemonError as fault:
                self._complain(f"flopsd's daemon does not listen to this process: {fault}")
                pause = REFUSED_SECONDS
            except Exception:
                log.exception("flopsd is not told anything any more")
                return
            finally:
                self._hang_up()
            if last:
                return
            self._backoff_seconds = min(2 * self._backoff_seconds, BACKOFF_SECONDS_MAX)
            self._clock.wait(self._closing, pause)

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _talk(self) -> None:
        """Tell everything, then what changes, until closed. Raises OSError when the daemon goes away."""
        told = self._call()
        with suppress(BrokenPipeError):  # who is refused at the door is told why
            self._say(told, "hello", session=self.session, client=__version__, pid=os.getpid())
        answer = self._answer(told)
        if answer.get("flopsd") != PROTOCOL or answer.get("ok") is not True:
            raise _RefusedByDaemonError(str(answer.get("error", answer))[:400])
        self._add_up()
        with self._lock:
            self._untold_facts = set(self._facts)
            self._transitions.clear()
            if self._phase is not None:
                self._transitions.append(self._phase)
            self._untold_work = bool(self._work)
        self._work_told_ns = -NS_PER_S * 3600
        self._backoff_seconds = BACKOFF_SECONDS
        log.info("flopsd's daemon listens at %s", told.getpeername())
        while True:
            closing = self._closing.is_set()
            self._tell(told, everything=closing)
            if closing:
                self._say(told, "bye")
                while "ok" not in self._answer(told):
                    pass
                return
            self._clock.wait(self._closing, TELL_SECONDS)
            self._await_change(WORK_SECONDS - TELL_SECONDS)
            self._read_errors(told)

    def _call(self) -> socket.socket:
        """Connect to the first place where somebody answers. Raises OSError."""
        missing = OSError("no place to look for a daemon")
        for place in self._places:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(ANSWER_SECONDS)
            try:
                self._socket.connect(os.fspath(place))
            except OSError as fault:
                self._socket.close()
                missing = fault
            else:
                return self._socket
        raise missing

    def _await_change(self, seconds: float) -> None:
        self._awake = False
        if not self._closing.is_set() and not self._untold_facts and not self._transitions:
            with suppress(queue.Empty):
                self._wake.get(timeout=seconds)
        self._awake = True
        with suppress(queue.Empty):
            while True:
                self._wake.get_nowait()

    def _tell(self, told: socket.socket, *, everything: bool) -> None:
        now_ns = self._clock.boottime_ns()
        self._add_up()
        with self._lock:
            facts = {name: self._facts[name] for name in self._untold_facts}
            self._untold_facts.clear()
            transitions = list(self._transitions)
            self._transitions.clear()
            work: dict[str, dict[str, int]] = {}
            if self._untold_work and (everything or now_ns - self._work_told_ns >= WORK_SECONDS * NS_PER_S):
                work = {phase: dict(counters) for phase, counters in self._work.items()}
                self._untold_work, self._work_told_ns = False, now_ns
        for name, value in sorted(facts.items()):
            self._say(told, "declare", facts={name: value})
        for phase in transitions:
            self._say(told, "phase", phase=phase)
        if work:
            self._say(told, "work", work=work)

    def _say(self, told: socket.socket, kind: str, **fields: object) -> None:
        told.sendall(_line(kind, **fields))

    def _answer(self, told: socket.socket) -> dict[str, Any]:
        """One line of the daemon's. Raises OSError, or ValueError for what no daemon says."""
        line = bytearray()
        while not line.endswith(b"\n"):
            piece = told.recv(1)  # answers are short and few
            if not piece:
                raise ConnectionResetError("the daemon went away")
            line += piece
            if len(line) > MAX_LINE_BYTES:
                raise ValueError("an answer without an end")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("no answer of a daemon's")
        return found

    def _read_errors(self, told: socket.socket) -> None:
        """Log what the daemon did not take. Raises OSError when it went away."""
        told.setblocking(False)
        try:
            there = told.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        finally:
            told.settimeout(ANSWER_SECONDS)
        if not there:
            raise ConnectionResetError("the daemon went away")
        answer = self._answer(told)
        if "error" in answer:
            self._complain(f"flopsd's daemon does not take this: {answer['error']!s:.400}")


def _line(kind: str, **fields: object) -> bytes:
    message = {"flopsd": PROTOCOL, "kind": kind, **fields}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _checked(name: str, value: object) -> Any:
    """A fact as the daemon will take it. Raises ValueError."""
    line = _line("declare", facts=facts_from({name: value}))
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"{name} has more than {MAX_LINE_BYTES} bytes")
    daemon = Conversation(0, 0)
    daemon.session = ""
    try:
        heard = daemon.hear(line)
    except RefusedError as fault:
        raise ValueError(f"{name}: {fault}") from None
    assert isinstance(heard, FactsDeclared)
    return heard.facts[name]

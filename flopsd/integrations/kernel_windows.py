"""Record the kernels of a training in short windows of PyTorch's own profiler, and declare them by class.

    windows = KernelWindows(client)
    for batch in batches:
        with windows.step():
            ...

A window is one step, at most once in ten minutes, and less often if windows would take more than 0.5 % of the time.
There is none while another profiler runs. Nothing here raises an error in the training.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import Any

import torch
from torch.autograd import profiler as torch_profiler

from flopsd.core.dataclass import dataclass
from flopsd.core.declarations import Phase
from flopsd.core.kernel_windows import COST_NS, SKIPPED, WINDOW_NS, WINDOWS
from flopsd.integrations.kernel_classes import KernelClasses
from flopsd.integrations.operators.mode import is_capturing
from flopsd.integrations.operators.sessions import DeviceSessions

log = logging.getLogger("flopsd.client")
FIRST_SECONDS, EVERY_SECONDS = 120.0, 600.0
MOST_OF_THE_TIME_PPM = 5_000
PART_NS = 200_000_000  # a window of at least this length may end with a part of a step
OLDEST_CUDA = (12, 6)  # before it, PyTorch's profiler can crash a process that replays CUDA graphs
_SECOND_NS = 1_000_000_000
# Variables of tools that trace through CUPTI, which serves one client at a time, or through PyTorch's profiler.
_OTHER_TOOLS = ("CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH", "NSYS_PROFILING_SESSION_ID", "KINETO_USE_DAEMON")
_PHASES = frozenset(phase.value for phase in Phase)
_ENTRANCES = ("_prepare_profiler", "_enable_profiler")


@dataclass(slots=True)
class _Window:
    profile: Any
    cost_ns: int
    began_ns: int
    thread: int = field(default_factory=threading.get_ident)
    entrances: dict[str, Any] = field(default_factory=dict)


class KernelWindows:
    """Declares the kernels of sampled windows to `client`. `sessions`: the sessions of an `OperatorCounter` of the same
    client. `profile` makes the profiler of a window: for tests without a GPU."""

    def __init__(
        self, client: Any, *, sessions: DeviceSessions | None = None, first_seconds: float = FIRST_SECONDS,
        every_seconds: float = EVERY_SECONDS, profile: Callable[[], Any] | None = None,
    ) -> None:  # fmt: skip
        self._client, self._sessions = client, sessions or DeviceSessions(client, declares_precision=False)
        self._every_ns, self._profile, self._now_ns = round(every_seconds * _SECOND_NS), profile, client.now_ns
        self._next_ns = self._now_ns() + round(first_seconds * _SECOND_NS)
        self._classes: KernelClasses | None = None
        self._window: _Window | None = None
        self._pid = os.getpid()
        self.ended: str | None = None  # the reason code if there are no more windows

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step of the training, in a window if one is due."""
        self.begin_step()
        yield  # after an error the next step ends the window: ending it waits for the device, which may hang
        self.end_step()

    def begin_step(self) -> None:
        """Open a window if one is due."""
        if self.ended is not None or (self._window is None and self._now_ns() < self._next_ns):
            return
        try:
            if os.getpid() == self._pid:
                self._leave()  # the window of a step that an error ended
                if self._window is None and self._now_ns() >= self._next_ns:
                    self._begin()
        except Exception:  # noqa: BLE001 (logged there)
            self._end("window_did_not_open")

    def end_part(self) -> None:
        """After a part of a step, as with accumulated gradients: end the window if it is long enough."""
        if (window := self._window) is not None and self._now_ns() - window.began_ns >= PART_NS:
            self.end_step()

    def end_step(self) -> None:
        """End the window and declare its kernels."""
        window = self._window
        if window is None or window.thread != threading.get_ident() or os.getpid() != self._pid:
            return
        try:
            if not is_capturing():  # waiting for the device would break the capture of the graph
                self._close(window)
        except Exception:  # noqa: BLE001 (logged there)
            self._end("window_did_not_close")

    def close(self) -> None:
        """End an open window without declaring its kernels."""
        try:
            self._leave()
        except Exception:  # noqa: BLE001 (logged there)
            self._end("window_did_not_close")

    def _begin(self) -> None:
        if (why := self._why_never()) is not None:
            self._end(why, because=False)
            return
        began_ns = self._now_ns()
        if _another_profiler() or is_capturing() or torch.compiler.is_compiling():
            self._skip()
            return
        profile = _profile() if self._profile is None else self._profile()
        profile.start()
        opened_ns = self._now_ns()
        self._window = _Window(profile, opened_ns - began_ns, opened_ns)
        self._watch(self._window)

    def _close(self, window: _Window) -> None:
        closing_ns = self._now_ns()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        window_ns = self._now_ns() - window.began_ns
        self._stop(window)
        self._classes = self._classes or KernelClasses()
        seen = self._classes.counters_by_device(window.profile.profiler.kineto_results.events(), window_ns)
        cost_ns = window.cost_ns + self._now_ns() - closing_ns
        self._next_ns = self._now_ns() + max(self._every_ns, cost_ns * 1_000_000 // MOST_OF_THE_TIME_PPM)
        if not seen:
            self._end("no_kernels_seen", because=False)
        for device, counters in seen.items():
            whole = {WINDOWS: 1, WINDOW_NS: window_ns, COST_NS: cost_ns, **counters}
            self._sessions.count(torch.device("cuda", device), self._phase(), whole)

    def _watch(self, window: _Window) -> None:
        """Make a profiler that the training starts end the window first: two profilers at a time raise an error."""
        for name in _ENTRANCES:
            original = window.entrances[name] = getattr(torch_profiler, name)

            def entrance(*arguments: Any, original: Any = original, **named: Any) -> Any:
                self.close()
                return original(*arguments, **named)

            setattr(torch_profiler, name, entrance)

    def _leave(self) -> None:
        window = self._window
        if window is None or os.getpid() != self._pid:  # a forked child has no profiler of its own
            return
        if window.thread == threading.get_ident() and not is_capturing():
            self._stop(window)
            self._skip()

    def _stop(self, window: _Window) -> None:
        self._window = None
        for name, original in window.entrances.items():
            setattr(torch_profiler, name, original)
        window.profile.stop()

    def _skip(self) -> None:
        self._next_ns = self._now_ns() + self._every_ns
        self._client.count(self._phase(), **{SKIPPED: 1})

    def _phase(self) -> str:
        phase = self._client.current_phase
        return phase if phase in _PHASES else "other"

    def _why_never(self) -> str | None:
        if any(os.environ.get(name) for name in _OTHER_TOOLS):
            return "another_tool_traces"
        if self._profile is not None:
            return None
        if not torch.cuda.is_available() or torch.version.cuda is None:
            return "no_nvidia_gpu"
        version = tuple(int(part) for part in torch.version.cuda.split(".")[:2])
        return "cuda_too_old" if version < OLDEST_CUDA else None

    def _end(self, code: str, *, because: bool = True) -> None:
        """No more windows in this process."""
        self.ended = code
        words = "flopsd records no more kernels: %s; the training goes on"
        log.warning(words, code, exc_info=because)
        if (window := self._window) is not None:  # stop recording
            with suppress(Exception):
                self._stop(window)


def _profile() -> Any:
    # Not torch.profiler.profile, which marks the process as having a profiler with a schedule.
    return torch.profiler._KinetoProfile(activities=[torch.profiler.ProfilerActivity.CUDA])


def _another_profiler() -> bool:
    """Whether a PyTorch profiler is running, or one with a schedule waits for its next step."""
    return bool(
        torch_profiler._is_profiler_enabled
        or torch.autograd._profiler_enabled()
        or torch.profiler.profiler.PROFILER_STEP_NAME in torch_profiler.KinetoStepTracker._step_dict
    )

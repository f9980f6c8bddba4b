"""Which run has which of a process's counters. A process may meet several runs, at once or one after the other: each is
to have what was counted while it metered, and no other run's part."""

from __future__ import annotations

from flopsd.client.counted_work import CountedWork, Work
from flopsd.core.kernel_windows import OBSERVED
from flopsd.core.session_protocol import QUEUED_NS

_OF_DEVICES = frozenset({"operator_flop", "recomputed_operator_flop", *OBSERVED})
FORGOTTEN = "what ran until a minute after the process connected to a daemon that had not metered all of its time"
ELSEWHERE = "what the process counted for another daemon that metered at the same time"


class WorkByRun:
    """The work of one session. Only the thread that sends may call the methods."""

    def __init__(self, counted: CountedWork, since_ns: int) -> None:
        self._counted = counted
        self.since_ns = since_ns  # operators have been counted since then, in addition to those `_kept`
        self.behind_until_ns = 0  # operators counted until then may have run before this process met the daemon
        self._forgotten: set[str] = set()  # phases of operators that were counted and not sent
        self._elsewhere: set[str] = set()  # phases of work that another run has, in the time of this one
        self._run_key = ""  # of the run of the last daemon
        self._sent: Work = {}  # the counters that this run has
        self._sent_ns = 0  # when they had been counted
        self._sent_to: dict[str, Work] = {}  # the counters that other runs have
        self._kept: Work = {}  # of these, those before `since_ns` that are in the daemon's run

    def meet(self, run_key: str, metered_since_ns: int, now_ns: int, *, is_known: bool) -> None:
        """A daemon answered: the key of its run, since when it has metered, and whether it knows this session."""
        if is_known and not self._sent_to:
            self._run_key = run_key  # the one run that was met, whose journal was replaced
        elif run_key != self._run_key:
            self._change_run(run_key, metered_since_ns)
        if metered_since_ns > self.since_ns:  # not all of this work is in the daemon's run
            self.since_ns, self._kept = now_ns, self._sent if is_known else {}
            phases = self._counted.forget(_OF_DEVICES, self._kept)
            self._forgotten |= phases
            if phases or self._kept or any(self._sent_to.values()):
                self.behind_until_ns = self.since_ns + QUEUED_NS
        self._counted.send_again()

    def changed(self, now_ns: int) -> Work:
        """The counters that this run does not have yet; empty if it has all."""
        is_behind = now_ns < self.behind_until_ns
        work, forgotten = self._counted.changed(_OF_DEVICES if is_behind else frozenset(), self._kept)
        self._forgotten |= forgotten
        return work

    def sent(self, work: Work, counted_ns: int) -> None:
        self._sent, self._sent_ns = work, counted_ns

    @property
    def left_out(self) -> dict[str, dict[str, str]]:
        """What is not in the daemon's run: words by phase, by the fact that names them."""
        return {
            "operators_not_counted": dict.fromkeys(self._forgotten, FORGOTTEN),
            "not_counted": dict.fromkeys(self._elsewhere, ELSEWHERE),
        }

    def _change_run(self, run_key: str, metered_since_ns: int) -> None:
        """Count on from what this run has, with what no other run has."""
        if self._sent or self._run_key:
            self._sent_to[self._run_key] = self._sent
        known = self._sent_to.pop(run_key, {})
        self._counted.move(self._sent, known)
        self._run_key, self._sent, self._kept = run_key, known, known
        if metered_since_ns <= self._sent_ns:
            self._elsewhere.update(*self._sent_to.values())

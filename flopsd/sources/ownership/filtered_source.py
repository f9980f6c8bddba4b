"""A source limited to this job's devices and readings.

The rule is asked again after five to ten seconds, at a moment that no job can predict. Up to the last question that was
answered, the listed devices were this job's (`Sweep.ours_until_ns`); a later reading may be of another job's work. A
device that stopped being this job's is no longer listed, but named in `Sweep.not_ours`: its time up to the last
question that found it to be another job's is not part of this job, not even of the total's upper figure.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flopsd.core.model import Device, DeviceUid, Gap, GapReason, Growth, Reading, Sweep
from flopsd.errors import OwnershipError, SourceUnavailableError
from flopsd.sources import Source
from flopsd.sources.calls import before_last_read, close_source, devices_of, facts_version_of, poll_source
from flopsd.sources.ownership.rule import Ownership, OwnershipResult, OwnershipRule
from flopsd.sources.validate import fit, shown
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.system.randomness import random_below

log = logging.getLogger("flopsd")
ASK_AGAIN_NS = 10 * NS_PER_S
ASK_SECOND_NS = 2 * NS_PER_S  # for the second question, so that the first figure comes early
UNASKED_NS = 15 * NS_PER_S  # plus three intervals, since a question is asked with a read
OPEN_SECONDS = 5.0  # more than any rule's own deadline
GRACE_SECONDS = 0.2  # far below the silence that the writer allows at the shortest interval
_ENERGY = "energy_mj"
_UNKNOWN = Ownership(None, why="the rule was not asked yet")


class FilteredSource:
    """`source` without the devices that are not this job's by `rule`. A device whose verdict becomes indeterminate
    keeps its last verdict. A device that never had one is listed, and its `shared` states that: leaving it out would
    assert that it is not this job's."""

    def __init__(
        self,
        source: Source,
        rule: OwnershipRule,
        clock: Clock,
        *,
        sharing: OwnershipRule | None = None,
        interval_ns: int = NS_PER_S,
        grace_seconds: float = GRACE_SECONDS,
        draw_below: Callable[[int], int] = random_below,
    ) -> None:
        """Takes `source` over, and closes it on failure. `sharing`: a rule that counts who else uses a device, where
        possible. `interval_ns`: the time between two reads. Raises SourceUnavailableError if the rule gives no verdict
        on any device, or a constant rule selects none."""
        self.name = source.name
        self._source, self._rule, self._clock, self._grace_seconds = source, rule, clock, grace_seconds
        self._draw_below, self._unasked_ns = draw_below, UNASKED_NS + 3 * interval_ns
        self._asker, self._returning = RuleThread(rule), ReturningDevices()
        self._sharing = None if sharing is None else RuleThread(sharing)
        self._sharers: dict[DeviceUid, str | None] = {}
        self._verdicts: dict[DeviceUid, Ownership] = {}
        # Devices that every question found to be another job's, but perhaps were this job's during a long time without
        # a question: listed once, so that this time is a gap.
        self._unsure: set[DeviceUid] = set()
        # When the last answered question was asked, and when the last that was answered or given up.
        self._known_ns = self._settled_ns = clock.boottime_ns()
        self._fault = ""
        try:
            self._begin()
        except BaseException:
            close_source(source)
            raise

    def devices(self) -> Sequence[Device]:
        return [self._shown(device) for device in self._source.devices() if self._counts(device.uid)]

    def read(self) -> Sweep:
        self._unsure.clear()
        self._ask_if_due()
        sweep = self._source.read()
        self._take_answer()
        given = tuple(sweep.readings)  # a plug-in's readings may be iterable only once
        for reading in given:
            if reading.device not in self._verdicts and not self._rule.constant:
                self._returning.joined(reading.device, reading.end_ns)
        readings = tuple(self._returning.corrected(reading) for reading in given if self._counts(reading.device))
        gauges = {uid: gauges for uid, gauges in sweep.gauges.items() if self._counts(uid)}
        others = frozenset(device.uid for device in self._source.devices() if not self._counts(device.uid))
        not_ours_at_ns, ours_until_ns = (None, None) if self._rule.constant else (self._known_ns, self._settled_ns)
        return replace(
            sweep, readings=readings, gauges=gauges, not_ours=sweep.not_ours | others, not_ours_at_ns=not_ours_at_ns,
            ours_until_ns=ours_until_ns,
        )  # fmt: skip

    def before_last_read(self) -> None:
        """Ask the rule with the next read, even if that is not due."""
        self._again_ns = self._clock.boottime_ns()
        before_last_read(self._source)

    @property
    def facts_version(self) -> str | None:
        return facts_version_of(self._source)

    def poll(self, until_ns: int) -> int | None:
        return poll_source(self._source, until_ns)

    def describe(self) -> Mapping[str, Any]:
        devices = self._source.devices()
        chosen = sum(self._counts(device.uid) for device in devices)
        selection = f"{self._rule.words}: {chosen} of {len(devices)}"
        if self._unmatched:
            selection += f"; not found here: {', '.join(self._unmatched)}"
        if self._fault:
            selection += f"; {self._fault}"
        return {**self._source.describe(), "devices": fit(selection)}

    def close(self) -> None:
        self._source.close()

    def _begin(self) -> None:
        devices = devices_of(self._source)
        self._ask(devices)
        self._again_ns = self._asked_ns + ASK_SECOND_NS - self._draw_below(ASK_SECOND_NS // 2)
        answer = self._asker.take(OPEN_SECONDS)
        if answer is None:
            answer = OwnershipError(f"no answer within {OPEN_SECONDS:g} s on {self._rule.words}")
        if isinstance(answer, OwnershipError):
            raise SourceUnavailableError(f"cannot determine which devices are this job's: {answer}", hint=answer.hint)
        given = answer.verdicts.values()
        if given and all(verdict.mine is None for verdict in given):
            why = "; ".join(dict.fromkeys(verdict.why for verdict in given))
            raise SourceUnavailableError(
                f"cannot determine which devices are this job's: {why}",
                hint="choose them by another rule of the setting `devices`, such as their UUIDs",
            )
        if self._rule.constant and not any(verdict.mine is not False for verdict in given):
            here = ", ".join(f"{device.index} ({device.uid})" for device in devices)
            why = f"source {self.name!r} has none of {self._rule.words}"
            raise SourceUnavailableError(why, hint=f"devices here: {here or 'none'}", absent=True)
        self._accept(answer)
        if self._rule.lasting:
            self._returning = ReturningDevices()
        if self._unmatched:
            log.warning("source %s does not have these devices: %s", self.name, ", ".join(self._unmatched))

    def _ask(self, devices: Sequence[Device]) -> None:
        self._asker.ask(devices)
        if self._sharing is not None:
            self._sharing.ask(devices)
        self._asked_ns, self._asked_of = self._clock.boottime_ns(), frozenset(device.uid for device in devices)
        self._again_ns = self._asked_ns + ASK_AGAIN_NS - self._draw_below(ASK_AGAIN_NS // 2)

    def _ask_if_due(self) -> None:
        devices = self._source.devices()
        others = self._asked_of != {device.uid for device in devices}
        asks, now_ns = self._sharing is not None or not self._rule.constant, self._clock.boottime_ns()
        if self._asker.waiting:
            if asks and now_ns - self._asked_ns >= ASK_AGAIN_NS:
                self._refuse(OwnershipError(f"no answer within {ASK_AGAIN_NS // NS_PER_S} s"), now_ns)
        elif others or (asks and now_ns >= self._again_ns):
            self._ask(devices)

    def _take_answer(self) -> None:
        if self._sharing is not None:
            counted = self._sharing.take(self._grace_seconds)
            if isinstance(counted, OwnershipResult):
                self._sharers = {uid: verdict.shared for uid, verdict in counted.verdicts.items()}
        answer = self._asker.take(self._grace_seconds)
        if isinstance(answer, OwnershipError):
            self._refuse(answer, self._asked_ns)
        elif answer is not None:
            if self._fault:
                log.info("source %s: can determine again which devices are this job's", self.name)
            self._accept(answer)
            self._fault, self._known_ns, self._settled_ns = "", self._asked_ns, self._asked_ns

    def _refuse(self, fault: OwnershipError, until_ns: int) -> None:
        """Keep the last verdicts up to `until_ns`, since the rule does not answer; every device states that."""
        self._settled_ns = until_ns
        text = f"can no longer determine which devices are this job's ({fault}): the last known selection is kept"
        if text != self._fault:
            log.warning("source %s: %s%s", self.name, text, f"; {fault.hint}" if fault.hint else "")
        self._fault = text

    def _accept(self, judgement: OwnershipResult) -> None:
        self._unmatched = judgement.unmatched
        # No question was asked for so long that others may have had a device meanwhile.
        unasked = not self._rule.lasting and self._asked_ns - self._known_ns > self._unasked_ns
        for uid, verdict in judgement.verdicts.items():
            before = self._verdicts.get(uid)
            if verdict.mine is None and before is not None and before.mine is not None:
                verdict = replace(before, why=verdict.why)
            if unasked and before is not None and before.mine is verdict.mine is False:
                self._unsure.add(uid)
            joined = before is None or before.mine is False or unasked
            if joined and (verdict.mine is not False or uid in self._unsure) and not self._rule.constant:
                self._returning.joined(uid, self._asked_ns)
            if before is not None and verdict.mine is not before.mine:
                log.info("device %s is %s", uid, "this job's now" if verdict.mine else "not this job's any more")
            self._verdicts[uid] = verdict

    def _counts(self, uid: DeviceUid) -> bool:
        return uid in self._unsure or self._verdicts.get(uid, _UNKNOWN).mine is not False

    def _shown(self, device: Device) -> Device:
        verdict = self._verdicts.get(device.uid, _UNKNOWN)
        unknown = "it is not known whether this device is this job's" if verdict.mine is None else ""
        users = (device.shared, verdict.shared, self._sharers.get(device.uid), unknown)
        reasons = (device.evidence_reason, verdict.why, self._fault)
        shared, reason = (fit("; ".join(filter(None, texts))) for texts in (users, reasons))
        return replace(device, shared=shared or None, evidence_reason=reason)


class ReturningDevices:
    """Corrects readings of devices that leave the job and return. An absence is a gap, and its energy is left out."""

    def __init__(self) -> None:
        self._since_ns: dict[DeviceUid, int] = {}  # since when a device is this job's, until it is read
        self._energy_mj: dict[DeviceUid, int] = {}  # as last read while it was this job's
        self._not_ours_mj: dict[DeviceUid, int] = {}

    def joined(self, uid: DeviceUid, since_ns: int) -> None:
        """Note that a device is this job's from `since_ns` on, and may not have been before."""
        self._since_ns[uid] = since_ns

    def corrected(self, reading: Reading) -> Reading:
        """Return what may be counted of `reading`."""
        uid, since_ns = reading.device, self._since_ns.get(reading.device)
        fresh = since_ns is not None
        if since_ns is not None and not isinstance(reading.work, Gap):
            grew = isinstance(reading.work, Growth)  # includes others' work: its totals only mark where counting begins
            if reading.end_ns >= since_ns if grew else reading.begin_ns >= since_ns:
                del self._since_ns[uid]
            if grew or reading.begin_ns < since_ns:
                reading = replace(reading, work=Gap(GapReason.STARTING))
        energy_mj = reading.counters.get(_ENERGY)
        if energy_mj is None:
            return reading
        before_mj = self._energy_mj.get(uid)
        self._energy_mj[uid] = energy_mj
        if before_mj is not None and energy_mj < before_mj:
            self._not_ours_mj.pop(uid, None)  # the counter started over
        elif before_mj is not None and fresh:
            self._not_ours_mj[uid] = energy_mj  # count from zero: a counter that fell does not cover the time before
        left_mj = energy_mj - self._not_ours_mj.get(uid, 0)
        return replace(reading, counters={**reading.counters, _ENERGY: left_mj})


class RuleThread:
    """Asks a rule in its own thread, so that a socket, file server or driver that hangs never delays a reading. Only
    one question is open at a time: one that hangs keeps its thread, and no other is asked meanwhile."""

    def __init__(self, rule: OwnershipRule) -> None:
        self._rule = rule
        self._answers: queue.SimpleQueue[OwnershipResult | OwnershipError] = queue.SimpleQueue()
        self.waiting = False  # whether a question was asked whose answer has not been taken yet
        self._waited_for = False

    def ask(self, devices: Sequence[Device]) -> None:
        """Ask about `devices`. A constant rule answers at once, in this thread."""
        if self.waiting:
            return
        self.waiting, self._waited_for = True, False
        if self._rule.constant:
            self._judge(tuple(devices))
            return
        try:
            threading.Thread(target=self._judge, args=(tuple(devices),), name="ownership", daemon=True).start()
        except RuntimeError as fault:  # the limit of threads is reached; the next question may find room
            self._answers.put(OwnershipError(str(fault)))

    def take(self, seconds: float) -> OwnershipResult | OwnershipError | None:
        """Return the answer, or None while there is none. Wait at most `seconds`, and only once for each question."""
        if not self.waiting:
            return None
        patience, self._waited_for = 0.0 if self._waited_for else seconds, True
        try:
            answer = self._answers.get(timeout=patience)
        except queue.Empty:
            return None
        self.waiting = False
        return answer

    def _judge(self, devices: Sequence[Device]) -> None:
        try:
            self._answers.put(self._rule.judge(devices))
        except OwnershipError as fault:
            self._answers.put(fault)
        except OSError as fault:  # no more open files, for instance
            self._answers.put(OwnershipError(str(fault)))
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # noqa: BLE001 - a plug-in may declare what the rule asks
            self._answers.put(OwnershipError(f"the rule failed: {shown(fault)}"))

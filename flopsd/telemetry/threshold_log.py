"""Logs when a run reaches a step towards a threshold that applies to it, once for each step."""

from __future__ import annotations

import logging

from flopsd.core.policy.evaluate import Finding, Verdict
from flopsd.core.rounding import Towards
from flopsd.report.numbers import percent
from flopsd.system.clock import NS_PER_S, Clock
from flopsd.telemetry.snapshot import Snapshot

log = logging.getLogger("flopsd")
STEPS_PPM = (500_000, 800_000, 950_000)
CHECK_SECONDS = 60


class ThresholdLog:
    """Checks once a minute. Steps are of what is certain (`low`) or measured, never of an upper bound."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._next_ns = clock, clock.boottime_ns()
        self._logged: dict[tuple[str, str], int] = {}

    def each_tick(self, snapshot: Snapshot) -> None:
        now_ns = self._clock.boottime_ns()
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + CHECK_SECONDS * NS_PER_S
        for finding in snapshot.view.findings:
            if finding.state is not None and finding.applies is not False:
                self._check(finding)

    def _check(self, finding: Finding) -> None:
        low, measured, _ = finding.share_ppm
        reached = max(low or 0, measured or 0)
        passed = len(STEPS_PPM) + 1 if finding.state is Verdict.ABOVE else sum(reached >= step for step in STEPS_PPM)
        key = (finding.policy, finding.rule.id)
        if passed <= self._logged.get(key, 0):
            return
        self._logged[key] = passed
        name, source = finding.rule.id, finding.rule.citation
        if finding.state is Verdict.ABOVE:
            consequence = " ".join(finding.rule.consequence.split())
            log.warning("ABOVE THE THRESHOLD of %s (%s): %s", name, source, consequence)
            return
        known = "measured" if reached == measured else "certain"
        log.warning(
            "%s FLOP have reached %s of the threshold %s (%s); `flopsd status` shows when it would be crossed",
            known,
            percent(reached, Towards.DOWN),
            name,
            source,
        )

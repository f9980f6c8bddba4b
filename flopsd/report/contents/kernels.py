"""Kernels that training processes recorded in sampled windows, by class. They are evidence; no figure rests on them."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from flopsd.core import kernel_windows as seen
from flopsd.core.rounding import format_percent, grouped
from flopsd.core.values import NS_PER_S, added
from flopsd.report.contents.model import KernelClass, ReportKernels
from flopsd.report.ledger_json import LedgerObject
from flopsd.report.numbers import duration
from flopsd.report.terminal import counted

_NOBODY = "The training processes' own observation, which nobody checked; no figure rests on it."


def kernels_of(predicate: LedgerObject, sessions: Iterable[LedgerObject]) -> ReportKernels | None:
    """The kernels recorded on the ledger's devices; None if no process recorded any or was kept from it."""
    spans: dict[str, Fraction] = {}
    for device in predicate.objects("devices"):
        uuid = device.text("uuid")
        spans[uuid] = spans.get(uuid, Fraction(0)) + device.decimal("spanSeconds")
    sums: dict[str, int] = {}
    devices: set[str] = set()
    strangers = 0
    for session in sessions:
        work = dict.fromkeys(seen.KERNEL_COUNTERS, 0)
        for _, counters in session.items("work"):
            for name in work.keys() & counters.mapping.keys():
                work[name] += counters.count(name)
        if work[seen.WINDOWS]:
            of = session.object("facts").maybe_text("device")
            if of not in spans:
                strangers += 1
                continue
            devices.add(of)
        sums = added(sums, work)
    if not any(sums.values()) and not strangers:
        return None
    return ReportKernels(_sampled(sums, [spans[one] for one in devices], strangers), _NOBODY, tuple(_classes(sums)))


def _sampled(sums: dict[str, int], spans: list[Fraction], strangers: int) -> str:
    windows = sums.get(seen.WINDOWS, 0)
    words = [f"Sampled: {counted(windows, 'window')}"]
    if windows and (whole := sum(spans)):
        took = Fraction(sums[seen.WINDOW_NS], NS_PER_S)
        share = format_percent(took / whole)
        words[0] += f" of {duration(took).text} in all, {share} of the time of {counted(len(spans), 'device')}"
        words.append(f"opening and reading them took {duration(Fraction(sums[seen.COST_NS], NS_PER_S)).text}")
    for count, what in (
        (sums.get(seen.SKIPPED, 0), "left out because another profiler ran or a step failed"),
        (sums.get(seen.REFUSED, 0), "refused, since no device can have run it"),
        (strangers, "of processes on devices that were not metered, not in the table"),
    ):
        words += [f"{grouped(count)} {what}"] if count else []
    return "; ".join(words) + "."


def _classes(sums: dict[str, int]) -> Iterable[KernelClass]:
    whole = sum(sums.get(name, 0) for name in seen.NS_OF.values())
    for one, words in seen.CLASSES.items():
        if launches := sums.get(seen.LAUNCHES_OF[one], 0):
            took = sums[seen.NS_OF[one]]
            share = format_percent(Fraction(took, whole) if whole else 0)
            yield KernelClass(words, share, duration(Fraction(took, NS_PER_S)).text, grouped(launches))

"""The lists in a ledger: devices, nodes, the ledgers that it was merged from, energy, attached evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from flopsd.attestation.evidence.item import REASON, EvidenceResult
from flopsd.core.ledger.merged_completeness import MAX_LISTED
from flopsd.core.model import Evidence
from flopsd.core.rounding import Towards
from flopsd.report.contents.bases import EVIDENCE
from flopsd.report.contents.coverage import ONLY_HERE, timed
from flopsd.report.contents.model import EvidenceLine, Fact, Member, ReportCompleteness, ReportDevice
from flopsd.report.ledger_json import LedgerObject, is_complete, line, may_be_longer
from flopsd.report.numbers import duration, energy, integers_text, interval, percent
from flopsd.report.terminal import counted

MAX_ROWS = 500
_REPLAY = "REPLAY: no evidence"
_GAP = Evidence.GAP.value
_Row = TypeVar("_Row")
ENERGY_BOUNDARY = (
    "By the accelerators' own energy counters: the devices alone. Host processors, memory, network, cooling and "
    "power supply losses are not included."
)


def rows_of(predicate: LedgerObject, key: str, row: Callable[[LedgerObject], _Row]) -> tuple[tuple[_Row, ...], int]:
    """The first MAX_ROWS rows of one of the ledger's lists, and how many are left out."""
    entries = list(predicate.objects(key))
    return tuple(map(row, entries[:MAX_ROWS])), max(0, len(entries) - MAX_ROWS)


def device(entry: LedgerObject) -> ReportDevice:
    reason = entry.maybe_text("evidenceReason")
    notes = [reason] if reason else []
    if "sharedWith" in entry:
        notes.append(f"shared with {entry.text('sharedWith')}")
    if entry.maybe_text("peakRow") is None:
        notes.append("not in the peak table, so it has no upper bound")
    elif entry.maybe_text("peakStatus") == "unverified":
        notes.append("its rates are unverified")
    read, expected = entry.maybe_count("smCount"), entry.maybe_count("smCountExpected")
    if read != expected and None not in (read, expected) and entry.maybe_text("parent") is None:
        notes.append(f"streaming multiprocessors: {_processors(entry)}")  # its ceilings follow from this
    facts = [
        Fact("Vendor", entry.text("vendor")),
        Fact("PCI bus", entry.maybe_text("pciBusId") or "not known"),
        Fact("Driver", entry.maybe_text("driver") or "not known"),
        Fact("Row of the peak table", entry.maybe_text("peakRow") or "none"),
        Fact("Streaming multiprocessors", _processors(entry)),
        Fact("Read by", entry.text("source")),
        Fact("Integer operations", integers_text(entry.figures("integerOperations"))),
    ]
    return ReportDevice(
        index=entry.count("index"),
        model=entry.text("model"),
        uuid=entry.text("uuid"),
        serial=entry.maybe_text("serial") or "not known",
        evidence="; ".join(f"{name}: {EVIDENCE[name]}" if name in EVIDENCE else name for name in _evidence(entry)),
        note="; ".join(notes),
        value=interval(entry.figures("executed")),
        observed=_observed(entry),
        energy=_energy_text(entry),
        facts=tuple(facts),
    )


def _evidence(entry: LedgerObject) -> list[str]:
    """What the device's figures are known by, the strongest first: also by earlier daemon starts, and by processes."""
    found = {row.text("evidence") for row in entry.objects("work")} - {_GAP}
    if entry.decimal("observedSeconds") or entry.decimal("recoveredSeconds"):
        found.add(entry.text("evidence"))  # it may have been idle
    known = [name for name in EVIDENCE if name in found]
    return [*known, *sorted(found.difference(known))] or [_GAP]


def _processors(entry: LedgerObject) -> str:
    read, expected = entry.maybe_count("smCount"), entry.maybe_count("smCountExpected")
    if read is None:
        return "not read" if expected is None else f"not read; the table expects {expected}"
    return f"{read}" if expected in (None, read) else f"{read}; the table expects {expected}"


def _observed(entry: LedgerObject) -> str:
    span = entry.decimal("spanSeconds")
    known = entry.decimal("observedSeconds") + entry.decimal("recoveredSeconds")
    # Without an upper bound a gap may be of unknown length.
    is_open = entry.figures("executed").high_flop is None and entry.maybe_text("peakRow") is not None
    return "not known" if span <= 0 else _share(int(known * 1_000_000 / span), is_open)


def _share(ppm: int, is_open: bool) -> str:
    return f"{'at most ' if is_open else ''}{percent(ppm, Towards.DOWN)}"


def _energy_text(entry: LedgerObject) -> str:
    joules = entry.maybe_decimal("energyJoules")
    if joules is None:
        return "not counted"
    return energy(joules).text + (", in part" if entry.decimal("energyUncountedSeconds") else "")


def energy_of(predicate: LedgerObject) -> tuple[Fact, ...]:
    joules, uncounted = predicate.maybe_decimal("energyJoules"), predicate.decimal("energyUncountedSeconds")
    least = "at least " if may_be_longer(predicate.object("coverage").object("gapSecondsByReason").mapping) else ""
    if joules is None:
        return (
            Fact("Energy", "not counted: no device reported it"),
            timed("Device time whose energy is not known", uncounted, least),
        )
    facts = [Fact("Energy", energy(joules).text, exact=energy(joules).exact)]
    if uncounted:
        missing = duration(uncounted)
        words = f"{least}{missing.text} of device time without an energy reading: the true total is higher"
        facts.append(Fact("Not included", words, exact=missing.exact))
    if not is_complete(predicate.mapping):
        facts.append(Fact("Incomplete", ONLY_HERE))
    return (*facts, Fact("Boundary", ENERGY_BOUNDARY))


def completeness_of(predicate: LedgerObject) -> ReportCompleteness | None:
    """The completeness of a merged ledger; None for a node's ledger."""
    entry = predicate.maybe_object("completeness")
    if entry is None:
        return None
    missing = entry.all_words("missing", "completeness.missing")
    facts = [
        Fact(name, entry.text(member))
        for name, member in (
            ("Nodes here", "nodes"),
            ("Nodes expected", "expectedNodes"),
            ("Nodes declared at the merge", "declaredNodes"),
        )
        if member in entry
    ]
    left_out = max(0, len(missing) - MAX_LISTED)
    return ReportCompleteness(
        entry.flag("complete"),
        entry.words("summary", "completeness.summary"),
        missing[:MAX_LISTED],
        left_out,
        tuple(facts),
    )


def nodes_of(predicate: LedgerObject) -> tuple[tuple[Member, ...], int]:
    """The rows of the nodes, and how many are left out. Of gaps of unknown length and of recordings only their ledgers
    say."""
    open_nodes, replayed = set(), set()
    for child in predicate.objects("children"):
        if _has_open_gap(child):
            open_nodes.add(_rank_and_name(child, "node"))
        if child.flag("replay"):
            replayed.add(_rank_and_name(child, "node"))

    def row(entry: LedgerObject) -> Member:
        who = _rank_and_name(entry, "name")
        return node(entry, is_open=who in open_nodes, is_replay=who in replayed)

    return rows_of(predicate, "nodes", row)


def _rank_and_name(entry: LedgerObject, name: str) -> tuple[int | None, str | None]:
    return entry.maybe_count("rank"), entry.maybe_text(name)


def _has_open_gap(child: LedgerObject) -> bool:
    return may_be_longer(child.object("coverage").object("gapSecondsByReason").mapping)


def node(entry: LedgerObject, *, is_open: bool, is_replay: bool) -> Member:
    share = entry.maybe_count("coveragePpm")
    held = f"{counted(entry.count('ledgers'), 'ledger')}, {counted(entry.count('attempts'), 'attempt id')}"
    return Member(
        name=entry.text("name"),
        where=_where(entry),
        span=("at least " if is_open else "") + duration(entry.decimal("deviceSeconds")).text,
        devices=entry.text("devices"),
        value=interval(entry.figures("executed")),
        observed="not known" if share is None else _share(share, is_open),
        energy=_energy_text(entry),
        digest="",
        note=f"{held}; {_REPLAY}" if is_replay else held,
    )


def child(entry: LedgerObject) -> Member:
    """A row for one of the ledgers that a merged ledger is made of."""
    share = entry.object("coverage").maybe_count("coveragePpm")
    whole = entry.maybe_object("completeness")
    notes = [_REPLAY] if entry.flag("replay") else []
    if whole is not None and whole.flag("complete") is not True:
        notes.append("incomplete" if whole.flag("complete") is False else "completeness not known")
    return Member(
        name=entry.text("name"),
        where=_where(entry) if entry.text("kind") == "node" else "job",
        span=f"{_minute(entry, 'startedAt')} to {_minute(entry, 'lastRecordAt')}",
        devices="",
        value=interval(entry.object("totals").figures("executed")),
        observed="not known" if share is None else _share(share, _has_open_gap(entry)),
        energy=_energy_text(entry),
        digest=entry.text("sha256"),
        note="; ".join(notes),
    )


def _where(entry: LedgerObject) -> str:
    rank, instance = entry.maybe_count("rank"), entry.maybe_text("instanceType")
    return ", ".join([*([] if rank is None else [f"rank {rank}"]), *([instance] if instance else [])]) or "no rank"


def _minute(entry: LedgerObject, key: str) -> str:
    return entry.utc(key)[:16].replace("T", " ")


def items_of(predicate: LedgerObject, found: Sequence[EvidenceResult]) -> tuple[EvidenceLine, ...]:
    """The attached evidence: the results of its check if it was checked, else as the ledger claims it."""
    if found:
        return tuple(
            EvidenceLine(line(f.type), f.verdict.value, line(f.text), line(f.proves), line(f.limits)) for f in found
        )
    from flopsd.attestation.evidence.collect import MODULES

    known = {module.KIND.name: (module.KIND.proves, module.KIND.limits) for module in MODULES}
    return tuple(
        EvidenceLine(
            entry.text("type"),
            "absent" if entry.text("state") == "absent" else "not checked by this report",
            entry.words("reason", REASON) if entry.raw("reason") else f"attached at {entry.utc('collectedAt')}",
            *known.get(entry.text("type"), ("", "")),
        )
        for entry in predicate.objects("evidence")
    )

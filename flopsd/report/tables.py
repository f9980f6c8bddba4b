"""Devices, nodes and ledgers, energy, and what is attached: the tables of a report."""

from __future__ import annotations

from collections.abc import Sequence

from flopsd.attestation.evidence.item import EvidenceResult
from flopsd.core.ledger.merged_completeness import MAX_LISTED
from flopsd.core.rounding import Towards
from flopsd.report.bases import EVIDENCE
from flopsd.report.coverage import ONLY_HERE, is_complete
from flopsd.report.ledger_json import LedgerObject, line
from flopsd.report.model import EvidenceLine, Fact, Member, ReportCompleteness, ReportDevice
from flopsd.report.numbers import duration, energy, interval, percent
from flopsd.report.terminal import counted

MAX_ROWS = 500
ENERGY_BOUNDARY = (
    "What the accelerators' own energy counters saw: the devices alone. Host processors, memory, network, cooling and "
    "losses of the power supply are not in it."
)


def devices_of(predicate: LedgerObject) -> tuple[tuple[ReportDevice, ...], int]:
    """The first devices of a node ledger, and how many are left out."""
    told = list(predicate.objects("devices"))
    return tuple(_device(one) for one in told[:MAX_ROWS]), max(0, len(told) - MAX_ROWS)


def _device(told: LedgerObject) -> ReportDevice:
    evidence, reason = told.text("evidence"), told.maybe_text("evidenceReason")
    notes = [reason] if reason else []
    if "sharedWith" in told:
        notes.append(f"shared with {told.text('sharedWith')}")
    if told.maybe_text("peakRow") is None:
        notes.append("not in the peak table: nothing of it has an upper bound")
    elif told.maybe_text("peakStatus") == "unverified":
        notes.append("its rates are unverified")
    facts = [
        Fact("Vendor", told.text("vendor")),
        Fact("PCI bus", told.maybe_text("pciBusId") or "not known"),
        Fact("Driver", told.maybe_text("driver") or "not known"),
        Fact("Row of the peak table", told.maybe_text("peakRow") or "none"),
        Fact("Streaming multiprocessors", _processors(told)),
        Fact("Read by", told.text("source")),
    ]
    return ReportDevice(
        index=told.count("index"),
        model=told.text("model"),
        uuid=told.text("uuid"),
        serial=told.maybe_text("serial") or "not known",
        evidence=f"{evidence}: {EVIDENCE[evidence]}" if evidence in EVIDENCE else evidence,
        note="; ".join(notes),
        value=interval(told.figures("executed")),
        observed=_observed(told),
        energy=_energy_text(told),
        facts=tuple(facts),
    )


def _processors(told: LedgerObject) -> str:
    read, expected = told.maybe_count("smCount"), told.maybe_count("smCountExpected")
    if read is None:
        return "not read" if expected is None else f"not read; the table expects {expected}"
    return f"{read}" if expected in (None, read) else f"{read}; the table expects {expected}"


def _observed(told: LedgerObject) -> str:
    span = told.decimal("spanSeconds")
    known = told.decimal("observedSeconds") + told.decimal("recoveredSeconds")
    return "not known" if span <= 0 else percent(int(known * 1_000_000 / span), Towards.DOWN)


def _energy_text(told: LedgerObject) -> str:
    joules = told.maybe_decimal("energyJoules")
    if joules is None:
        return "not counted"
    return energy(joules).text + (", in part" if told.decimal("energyUncountedSeconds") else "")


def energy_of(predicate: LedgerObject) -> tuple[Fact, ...]:
    joules, uncounted = predicate.maybe_decimal("energyJoules"), predicate.decimal("energyUncountedSeconds")
    if joules is None:
        return (
            Fact("Energy", "not counted: no device told it"),
            Fact("Device time whose energy is not known", duration(uncounted).text, exact=duration(uncounted).exact),
        )
    facts = [Fact("Energy", energy(joules).text, exact=energy(joules).exact)]
    if uncounted:
        facts.append(
            Fact(
                "Not in it",
                f"{duration(uncounted).text} of device time whose energy no counter told: the whole is more than this",
                exact=duration(uncounted).exact,
            )
        )
    if not is_complete(predicate):
        facts.append(Fact("Only in part", ONLY_HERE))
    return (*facts, Fact("Boundary", ENERGY_BOUNDARY))


def completeness_of(predicate: LedgerObject) -> ReportCompleteness | None:
    """None for a node's ledger, which is made of no others."""
    told = predicate.maybe_object("completeness")
    if told is None:
        return None
    missing = told.texts("missing")
    facts = [
        Fact(name, told.text(member))
        for name, member in (
            ("Nodes here", "nodes"),
            ("Nodes expected", "expectedNodes"),
            ("Nodes declared at the merge", "declaredNodes"),
        )
        if member in told
    ]
    left_out = max(0, len(missing) - MAX_LISTED)
    return ReportCompleteness(told.flag("complete"), told.text("summary"), missing[:MAX_LISTED], left_out, tuple(facts))


def nodes_of(predicate: LedgerObject) -> tuple[tuple[Member, ...], int]:
    told = list(predicate.objects("nodes"))
    return tuple(_node(one) for one in told[:MAX_ROWS]), max(0, len(told) - MAX_ROWS)


def _node(told: LedgerObject) -> Member:
    rank = told.maybe_count("rank")
    share = told.maybe_count("coveragePpm")
    return Member(
        name=told.text("name"),
        where=_where(rank, told.maybe_text("instanceType")),
        span=duration(told.decimal("deviceSeconds")).text,
        devices=told.text("devices"),
        value=interval(told.figures("executed")),
        observed="not known" if share is None else percent(share, Towards.DOWN),
        energy=_energy_text(told),
        digest="",
        note=counted(told.count("ledgers"), "ledger") + ", " + counted(told.count("attempts"), "attempt"),
    )


def children_of(predicate: LedgerObject) -> tuple[tuple[Member, ...], int]:
    """The ledgers that a merged one is made of."""
    told = list(predicate.objects("children"))
    return tuple(_child(one) for one in told[:MAX_ROWS]), max(0, len(told) - MAX_ROWS)


def _child(told: LedgerObject) -> Member:
    share = told.object("coverage").maybe_count("coveragePpm")
    whole = told.maybe_object("completeness")
    notes = ["REPLAY: no evidence"] if told.flag("replay") else []
    if whole is not None and whole.flag("complete") is not True:
        notes.append("incomplete" if whole.flag("complete") is False else "completeness not known")
    return Member(
        name=told.text("name"),
        where=_where(told.maybe_count("rank"), told.maybe_text("instanceType"))
        if told.text("kind") == "node"
        else "job",
        span=f"{_day(told.text('startedAt'))} to {_day(told.text('lastRecordAt'))}",
        devices="",
        value=interval(told.object("totals").figures("executed")),
        observed="not known" if share is None else percent(share, Towards.DOWN),
        energy=_energy_text(told),
        digest=told.text("sha256"),
        note="; ".join(notes),
    )


def _where(rank: int | None, instance: str | None) -> str:
    return ", ".join([*([] if rank is None else [f"rank {rank}"]), *([instance] if instance else [])]) or "no rank"


def _day(text: str) -> str:
    return text[:16].replace("T", " ")


def items_of(predicate: LedgerObject, found: Sequence[EvidenceResult]) -> tuple[EvidenceLine, ...]:
    """The attached evidence: as it was checked where it was, else as the ledger claims it."""
    if found:
        return tuple(
            EvidenceLine(line(f.type), f.verdict.value, line(f.text), line(f.proves), line(f.limits)) for f in found
        )
    return tuple(
        EvidenceLine(
            told.text("type"),
            "absent" if told.text("state") == "absent" else "not checked by this report",
            told.maybe_text("reason") or f"attached at {told.text('collectedAt')}",
            told.maybe_text("proves") or "",
            told.maybe_text("limits") or "",
        )
        for told in predicate.objects("evidence")
    )

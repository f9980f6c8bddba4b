"""The declarations of the operator and of the training processes, and who made each. None is a measurement."""

from __future__ import annotations

import json
from typing import Any

from flopsd.core.declarations import COUNTERS
from flopsd.core.kernel_windows import KERNEL_COUNTERS
from flopsd.core.policy.contradictions import START_BASE_DIFFERS
from flopsd.core.rounding import format_flop, grouped
from flopsd.core.values import shown
from flopsd.report.contents.kernels import kernels_of
from flopsd.report.contents.model import Fact, ReportDeclarations
from flopsd.report.ledger_json import LedgerObject, contradiction_text, line
from flopsd.report.terminal import counted

NOT_DECLARED = "not declared"
NOT_ALIKE = "not declared, or not by each start of the daemon alike"
DIFFERS = "differs between starts of the daemon"
NO_PROCESS = "No training process declared anything."
OF_NODES = "What training processes declared is in the ledgers of the nodes."  # a merged ledger has no list of it
_NAMES = {
    "role": "Role, beside the trained model",
    "phase": "Phase",
    "method": "Training method",
    "recomputation": "Recomputation of activations",
    "model_name": "Model",
    "model_revision": "Model revision",
    "model_config": "Model configuration",
    "parameters_total": "Parameters, total",
    "parameters_trainable": "Parameters, trainable",
    "lora": "LoRA",
    "attention": "Attention",
    "precision": "Number format",
    "packing": "Packing",
    "not_counted": "Not counted",
    "operators_not_counted": "Operators not counted",
    "device": "Device of the operators",
    "window": "Causal window",
    "rank": "Rank",
    "local_rank": "Local rank",
    "world_size": "World size",
    "framework": "Framework",
}
# Facts that differ between the processes of a job by design: shown as a count of values.
_PER_PROCESS = ("rank", "local_rank", "device")
# Counters of work that every process counts alike: a sum would multiply it.
_SHARED = ("steps",)
_BY_JOB = "the settings"


def declared_of(predicate: LedgerObject) -> ReportDeclarations:
    entry = predicate.object("declared")
    sessions = list(entry.objects("sessions"))
    names = ("phase", "method", "recomputation") if "sessions" in entry else ("method",)
    by = _BY_JOB if "sessions" in entry else "the ledgers that were merged"
    known = [(name, entry.maybe_text(name)) for name in names]
    starts = list(predicate.objects("incarnations"))
    if phases := _phases(starts):
        known[0] = ("phase", phases)
    if "sessions" not in entry and (methods := _methods(predicate)):  # its own is `full` or none if they differ
        known = [("method", methods)]
    unknown = NOT_ALIKE if len(starts) > 1 else NOT_DECLARED
    absent = {"phase": NOT_DECLARED}  # its own of each start is in the ledger
    job = [Fact(_NAMES[name], text or absent.get(name, unknown), by if text else "") for name, text in known]
    if conflict := entry.all_words("conflict", "declared.conflict"):  # only in a merged ledger
        job.append(Fact("Conflict", "; ".join(conflict)))
    named = list(entry.objects("contradictions"))
    job += [Fact("Contradiction", contradiction_text(one)) for one in named]
    differs = any(one.note()["code"] == START_BASE_DIFFERS for one in named)
    return ReportDeclarations(
        (*job, *_base(entry, DIFFERS if differs else NOT_DECLARED)),
        _processes(sessions),
        _work(sessions),
        "" if sessions else NO_PROCESS if "sessions" in entry else OF_NODES,
        kernels_of(predicate, sessions) if sessions else None,
    )


def _methods(predicate: LedgerObject) -> str:
    """The methods that the ledgers of a merged ledger declare, each once, and whether some declare none."""
    found, some_none = set[str](), ""
    for declared in (child.object("declared") for child in predicate.objects("children")):
        of_nodes = [one.texts("methods") for one in declared.objects("contradictions") if "methods" in one]
        own = declared.maybe_text("method")
        found.update(of_nodes[0] if of_nodes else filter(None, [own]))
        some_none = some_none if own else ", and some declare none"
    return ", ".join(sorted(found)) + some_none if found else ""


def _phases(starts: list[LedgerObject]) -> str:
    """The phases that the settings declared, if daemon starts declared different ones: `declared` has the last one."""
    phases = dict.fromkeys(start.maybe_text("phase") for start in starts)
    return f"{', '.join(one or NOT_DECLARED for one in phases)}: {DIFFERS}" if len(phases) > 1 else ""


def _base(entry: LedgerObject, absent: str) -> list[Fact]:
    base = entry.maybe_object("base")
    if base is None:
        return [Fact("Base model", absent)]
    by, compute, flop = base.text("declaredBy"), base.text("kind"), base.maybe_count("flop")
    by = _BY_JOB if by == "config" else by
    if compute == "estimated":
        compute = f"estimated by {base.text('method')}"
    elif compute == "unknown":
        compute = "declared as neither known nor estimable"
    if flop is not None:
        compute = f"{format_flop(flop)}, {compute}"
    systemic = {True: "yes", False: "no", None: NOT_DECLARED}[base.flag("systemic")]
    return [
        Fact("Base model", base.maybe_text("name") or "not named", by),
        Fact("Its training compute", compute, by, "" if flop is None else f"{flop} FLOP"),
        Fact("It has systemic risk", systemic, by if systemic != NOT_DECLARED else ""),
        *([Fact("Reason", base.text("reason"), by)] if "reason" in base else []),
    ]


def _processes(sessions: list[LedgerObject]) -> tuple[Fact, ...]:
    """Each declared fact, once per value, with the number of processes that declared it."""
    said: dict[str, dict[str, tuple[str, int]]] = {}
    for session in sessions:
        for name, raw in session.object("facts").mapping.items():
            short, full = _value(name, raw)
            before = said.setdefault(name, {}).get(full, (short, 0))
            said[name][full] = (short, before[1] + 1)
    found = []
    for name in sorted(said, key=lambda known: (list(_NAMES).index(known) if known in _NAMES else 99, known)):
        values = said[name]
        if name in _PER_PROCESS:
            found.append(Fact(_NAMES[name], counted(len(values), "value"), _by(sum(n for _, n in values.values()))))
            continue
        for full, (short, times) in list(values.items())[:8]:
            found.append(Fact(_NAMES.get(name, line(name)), short, _by(times), "" if full == short else full))
        if len(values) > 8:
            found.append(Fact(_NAMES.get(name, line(name)), f"and {len(values) - 8} other values"))
    return tuple(found)


def _by(times: int) -> str:
    return counted(times, "training process", "training processes")


def _value(name: str, raw: Any) -> tuple[str, str]:
    """A declared value in short, and in full."""
    full = line(raw if isinstance(raw, str) else json.dumps(raw, sort_keys=True))
    if isinstance(raw, bool):
        return ("yes" if raw else "no"), full
    if isinstance(raw, int):
        return grouped(raw), full
    if name == "model_config" and isinstance(raw, dict):
        kind = raw.get("model_type", raw.get("_class_name"))
        return f"config.json of {counted(len(raw), 'entry', 'entries')}" + (
            f", model type {line(kind)}" if isinstance(kind, str) else ""
        ), full
    if name == "precision" and isinstance(raw, dict) and all(type(ppm) is int for ppm in raw.values()):
        return ", ".join(f"{line(one)} {ppm / 10_000:g} %" for one, ppm in sorted(raw.items())), full
    if name == "lora" and isinstance(raw, dict):
        modules = raw.get("target_modules")
        where = f" on {', '.join(map(line, modules))}" if isinstance(modules, list) else ""
        return f"r = {line(shown(raw.get('r')))}{where}", full
    return full, full


def _work(sessions: list[LedgerObject]) -> tuple[Fact, ...]:
    """The work that the processes counted, added up by phase."""
    totals: dict[str, dict[str, int]] = {}
    shared: dict[tuple[str, str], int] = {}  # how many processes have such a counter
    for session in sessions:
        for phase, counters in session.items("work"):
            for name in COUNTERS:
                if name in counters and name not in KERNEL_COUNTERS:
                    sums = totals.setdefault(phase, {})
                    count = counters.count(name)
                    sums[name] = max(sums.get(name, 0), count) if name in _SHARED else sums.get(name, 0) + count
                    shared[phase, name] = shared.get((phase, name), 0) + (name in _SHARED)

    def shown_as(phase: str, name: str, count: int) -> str:
        # Of processes one after the other the sum would be right: which of them ran together is not known.
        most = " (the most of one process)" if shared[phase, name] > 1 else ""
        words = name.replace("_", " ")
        if count == 1:
            words = words.removesuffix("es") if words.endswith("sses") else words.removesuffix("s")
        return f"{grouped(count)} {words}{most}"

    return tuple(
        Fact(f"Phase {phase}", ", ".join(shown_as(phase, name, count) for name, count in sums.items()))
        for phase, sums in sorted(totals.items())
    )

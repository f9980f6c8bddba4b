"""A run's meaning as ledgers say it: declarations, bases, findings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flopsd.core.declarations import Base, Method, OperatorDeclarations
from flopsd.core.figures import figures_json
from flopsd.core.model import Figures
from flopsd.core.policy.bases import Architecture, Bases
from flopsd.core.policy.evaluate import Case, Policy, findings
from flopsd.core.policy.guidelines import Guidelines
from flopsd.core.session_protocol import DeclaredSession


def declared_for_ledger(
    found: Bases, declared: OperatorDeclarations, sessions: Iterable[DeclaredSession]
) -> dict[str, Any]:
    """What was declared and by whom; a declaration is no measurement."""
    settings, agreed = declared.for_journal(), found.declarations
    base = settings["base"]
    return {
        "phase": settings["phase"],
        "method": None if agreed.method is None else agreed.method.value,
        "recomputation": None if agreed.recomputation is None else agreed.recomputation.value,
        "base": None if base is None else {**base, "declaredBy": "config"},
        "sessions": [
            {
                "id": session.id,
                "process": {"pid": session.pid, "uid": session.uid, "client": session.client},
                "facts": session.facts,
                "work": {
                    phase: {name: str(value) for name, value in sorted(counters.items())}
                    for phase, counters in sorted(session.work.items())
                },
            }
            for session in sorted(sessions, key=lambda session: session.id)
        ],
    }


def guidelines_for_ledger(found: Bases) -> dict[str, Any]:
    share = found.declarations.required
    return {
        **found.guidelines.for_ledger(),
        "requiredPpm": {
            "low": str(share.low_ppm),
            "stated": None if share.stated_ppm is None else str(share.stated_ppm),
            "high": str(share.high_ppm),
        },
        "requiredPpmSource": share.source,
    }


def architecture_for_ledger(found: Architecture | None) -> dict[str, Any] | None:
    if found is None:
        return None
    trainable = found.parameters_trainable
    return {
        **found.counted.for_ledger(),
        "parameters": {
            "total": str(found.parameters_total),
            "active": str(found.parameters_active),
            "trainable": None if trainable is None else str(trainable),
        },
        "assumptions": list(found.assumptions),
    }


def findings_for_ledger(
    policies: Sequence[Policy],
    counted: Guidelines,
    method: Method | None,
    base: Base | None,
    *,
    whole: bool,
    conflict: str = "",
) -> list[dict[str, Any]]:
    """The findings of all policies, in their order."""
    case = Case(counted.updates, counted.cumulative, method, base, whole, conflict)
    return [finding.for_ledger() for policy in policies for finding in findings(policy, case)]


def policies_for_ledger(policies: Sequence[Policy]) -> list[dict[str, str]]:
    return [{"id": policy.id, "sha256": policy.sha256} for policy in policies]


def by_phase_for_ledger(by_phase: Mapping[str, Figures]) -> dict[str, Any]:
    return {phase: figures_json(by_phase[phase]) for phase in sorted(by_phase)}

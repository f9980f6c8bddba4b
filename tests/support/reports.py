"""Reports of statements, as the command makes them of ledgers."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from flopsd.core.ledger.statement import encode
from flopsd.report.build import report_of
from flopsd.report.model import Content, Report, VerificationResult
from flopsd.report.verification import LedgerDocument, not_checked
from flopsd.settings.data_files import load_policies
from tests.support.enriched import SCENES

MADE = "2026-11-25 16:45 UTC"
KEYID = "83cf0602b340d2394dc5ac754675d6494ab184390d66c268b30edc753ba4f91b"
ESCAPES = ("\x1b[31m", "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "line\nbreak", "{{ 7 * 7 }}")


def document(statement: Any) -> LedgerDocument:
    payload = encode(statement)
    return LedgerDocument(
        "ledger.json", "ledger.journal.jsonl", statement, sha256(payload).hexdigest(), len(payload), (KEYID,)
    )


def report(statement: Any, check: VerificationResult | None = None) -> Report:
    """Not verified, unless `check` says otherwise. A `course` beside the statement is drawn."""
    read = document({name: value for name, value in statement.items() if name != "course"})
    policy = next(policy for policy in load_policies() if policy.form is not None)
    return report_of(read, check or not_checked(read), MADE, policy=policy, course=statement.get("course", ()))


def content(statement: Any) -> Content:
    found = report(statement).content
    assert found is not None
    return found


def scene(name: str) -> Report:
    return report(SCENES[name]())

"""`report`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.cli.common import NOT_VERIFIED, OK, Verbs, waiting, write_output
from flopsd.cli.verify import add_verification, verify_with
from flopsd.errors import ConfigError, LedgerError, NotVerifiedError
from flopsd.system.clock import SystemClock, rfc3339
from flopsd.system.streams import set_encoding

if TYPE_CHECKING:
    from flopsd.attestation.evidence.item import EvidenceResult
    from flopsd.attestation.merge.verify_merged import VerifiedMerge
    from flopsd.attestation.verify import Verified
    from flopsd.core.ledger.history import History
    from flopsd.report.contents.model import Report, VerificationResult
    from flopsd.report.contents.verification import LedgerDocument
    from flopsd.settings.data_files import Tables
    from flopsd.system.progress import ProgressLine


def add(verbs: Verbs) -> None:
    report = verbs.add_parser(
        "report",
        help="report a ledger as text, HTML or figures for the Model Documentation Form",
        description="Shows a node's, job's or lineage's ledger to people who must decide on it: the verdict first, "
        "then the evidence. With --key it first verifies the ledger, as `flopsd verify` does, and shows no figure if "
        "that fails; without --key every page states that the ledger is not verified. "
        "Exit 0: written. Exit 3: --key was given and the ledger is not verified.",
    )
    report.add_argument("ledger", metavar="LEDGER")
    shape = report.add_mutually_exclusive_group()
    shape.add_argument(
        "--format",
        choices=("text", "html", "form"),
        default="text",
        help="text: for a terminal; html: one file that needs no network, to read and to print; "
        "form: the figures for the Model Documentation Form (default: text)",
    )
    shape.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    report.add_argument("-o", "--output", metavar="FILE", help="output file (default: stdout)")
    add_verification(report, key_text="verify the ledger first, with this public key of a signer, a PEM file")
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from flopsd.attestation.ledger_files import paths_of
    from flopsd.report.contents.build import report_of
    from flopsd.report.contents.model import VerificationState
    from flopsd.report.contents.verification import read_document
    from flopsd.settings.data_files import Tables, load_policies

    _refuse_unused_options(arguments)
    tables = Tables(peaks_files=arguments.peaks, policy_files=arguments.policy)
    document = read_document(Path(arguments.ledger), tuple(arguments.key), arguments.journal, tables)
    with waiting(arguments, f"reporting {arguments.ledger}") as line:
        check, found, course, history = _check(arguments, document, line)
        now_ns = SystemClock().wall_ns()
        made = f"{rfc3339(now_ns)[:16].replace('T', ' ')} UTC"
        line("writing the report", 0, 0)
        form = next((policy for policy in load_policies() if policy.form is not None), None)
        try:
            report = report_of(document, check, made, found, form, course, now_ns, history)
        except LedgerError as fault:
            if check.state is not VerificationState.REFUSED:
                raise
            raise NotVerifiedError(check.text, hint=check.hint) from fault
        text = _shown(arguments, document, report)
    ledger = Path(arguments.ledger)
    names = ("key", "peaks", "policy", "also", "anchors", "children", "aws_certificate", "tsa_certificate")
    given = [arguments.journal or ledger, *(file for name in names for file in getattr(arguments, name))]
    read = [*paths_of(ledger, ledger), *map(Path, given)]
    write_output(arguments.output, text, read)
    return NOT_VERIFIED if check.state is VerificationState.REFUSED else OK


def _check(
    arguments: argparse.Namespace, document: LedgerDocument, line: ProgressLine
) -> tuple[VerificationResult, tuple[EvidenceResult, ...], list[dict[str, Any]], History | None]:
    """Verify the ledger if the reader gave a key; also return its evidence, and its course and history by the
    journal."""
    from flopsd.attestation.verify import Verified
    from flopsd.report.contents.verification import not_checked, refused, verified

    if not arguments.key:
        return not_checked(document), (), [], None
    try:
        found = verify_with(arguments, line)
        if found.statement != document.statement:
            raise NotVerifiedError(f"{arguments.ledger} was changed while it was verified")
    except NotVerifiedError as fault:
        return refused(fault), (), [], None
    line("reading how its compute grew", 0, 0)
    history = found.history if isinstance(found, Verified) else None
    return *verified(found), _course(arguments, found, document.tables), history


def _course(arguments: argparse.Namespace, found: Verified | VerifiedMerge, tables: Tables) -> list[dict[str, Any]]:
    """The growth of the run's compute over time. Only a node's ledger has a journal."""
    from flopsd.attestation.ledger_files import journal_beside
    from flopsd.attestation.verify import Verified
    from flopsd.core.ledger.history import one_peak_table
    from flopsd.report.contents.build import course_of

    if not isinstance(found, Verified):
        return []
    journal = arguments.journal or journal_beside(Path(arguments.ledger))
    return course_of(journal, found.records, tables.peaks(one_peak_table(found.history)))


def _refuse_unused_options(arguments: argparse.Namespace) -> None:
    """Refuse verification options without a key: they would have no effect, yet the report would look verified."""

    names = ("allow_replay", "also", "anchors", "children", "aws_certificate", "tsa_certificate")
    unused = ["--threshold"] if arguments.threshold != 1 else []
    unused += [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name)]
    if unused and not arguments.key:
        raise ConfigError(
            [f"report: {option} verifies, which needs a key" for option in unused],
            hint="give the signer's public key with --key",
        )


def _shown(arguments: argparse.Namespace, document: LedgerDocument, report: Report) -> str:
    if arguments.json:
        return json.dumps(_facts(document, report)) + "\n"
    if arguments.format == "html":
        from flopsd.report.html.document import report_html

        set_encoding(sys.stdout, "utf-8")  # as the page declares
        return report_html(report)
    from flopsd.report.report_text import form_report, report_text

    return form_report(report) if arguments.format == "form" else report_text(report)


def _facts(document: LedgerDocument, report: Report) -> dict[str, Any]:
    from flopsd.report.contents.model import VerificationState

    content = report.content
    return {
        "verified": {VerificationState.VERIFIED: True, VerificationState.REFUSED: False}.get(report.check.state),
        "reason": report.check.text,
        "hint": report.check.hint,
        "kind": report.kind,
        "subject": report.subject,
        "payloadSha256": report.digest,
        "flags": [flag.word for flag in report.flags],
        "foreignFiles": [one.for_json() for one in document.foreign()],
        "answer": None if content is None else asdict(content.answer),
        "form": None if content is None or content.form is None else asdict(content.form),
        "predicate": None if content is None else document.statement["predicate"],
    }

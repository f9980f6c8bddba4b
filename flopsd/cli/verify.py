"""`verify`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.cli.common import NOT_VERIFIED, OK, positive
from flopsd.errors import ConfigError, NotVerifiedError

if TYPE_CHECKING:
    from flopsd.attestation.merge.verify_merged import VerifiedMerge
    from flopsd.attestation.verify import SignedStatement, Verified
    from flopsd.cli.common import Verbs


def add(verbs: Verbs) -> None:
    """The verbs of this module."""
    verify = verbs.add_parser(
        "verify",
        help="verify a ledger: signatures, then every total again",
        description="Checks signatures, then recomputes every total from journal and peak table. "
        "Exit 0: verified. Exit 3: not, and the first reason why.",
    )
    verify.add_argument("ledger", metavar="LEDGER")
    add_grounds(verify)
    told = verify.add_mutually_exclusive_group()
    told.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    told.add_argument(
        "--explain",
        action="store_true",
        help="how to check this ledger without flopsd, as a shell script on stdout, whatever the verdict; "
        "the verdict goes to stderr",
    )
    verify.set_defaults(run=_verify)


def add_grounds(parser: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """What a ledger is verified with; `needed`: there must be a key."""
    parser.add_argument(
        "--key",
        action="append",
        required=needed,
        default=None if needed else [],
        metavar="PUBLIC-KEY",
        help="PEM file; repeatable" if needed else "verify first, with this PEM file; repeatable",
    )
    parser.add_argument(
        "--threshold", type=positive, default=1, metavar="N", help="how many of the keys must have signed"
    )
    parser.add_argument("--journal", metavar="FILE", help="the journal, where it does not lie beside the ledger")
    parser.add_argument(
        "--peaks", metavar="FILE", help="the peak table, where it is neither packaged nor beside the ledger"
    )
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="FILE",
        help="a policy that the ledger was judged by, where it is not a packaged one; repeatable",
    )
    parser.add_argument(
        "--allow-replay", action="store_true", help="accept a replay of a recording, which is no evidence"
    )
    parser.add_argument(
        "--aws-certificate",
        action="append",
        default=[],
        metavar="FILE",
        help="AWS's certificate of the region, to check the instance identity document with; repeatable",
    )
    parser.add_argument(
        "--tsa-certificate",
        action="append",
        default=[],
        metavar="FILE",
        help="root of a timestamp authority, with the rest of its chain where tokens leave it out; repeatable",
    )
    parser.add_argument(
        "--anchors",
        action="append",
        default=[],
        metavar="LOGFILE",
        help="log with the daemon's checkpoint lines, as CloudWatch Logs, S3 or a container runtime gives it, also "
        "gzipped: each line must lie on the journal's chain; repeatable",
    )
    parser.add_argument(
        "--children",
        action="append",
        default=[],
        metavar="LEDGER",
        help="of a merged ledger: its children, a folder, archive or s3:// that holds them; repeatable",
    )


def judge(arguments: argparse.Namespace) -> Verified | VerifiedMerge:
    """Verify the ledger on the grounds that `add_grounds` asks for.

    Raises NotVerifiedError, and ConfigError for grounds that do not fit the kind of ledger.
    """
    from flopsd.attestation.evidence.trust import load_trust
    from flopsd.attestation.signing.keys import load_public
    from flopsd.attestation.verify import open_ledger, verify_opened
    from flopsd.settings.data_files import Tables

    keys = [load_public(file) for file in arguments.key]
    opened = open_ledger(Path(arguments.ledger), keys, arguments.threshold)
    if opened.kind in ("job", "lineage"):
        return _judge_merged(opened, arguments)
    if arguments.children:
        raise ConfigError([f"{arguments.verb}: --children is for merged ledgers, and {arguments.ledger} is a node's"])
    return verify_opened(
        opened,
        Path(arguments.ledger),
        journal=None if arguments.journal is None else Path(arguments.journal),
        tables=Tables(arguments.peaks, arguments.policy),
        allow_replay=arguments.allow_replay,
        trust=load_trust(arguments.aws_certificate, arguments.tsa_certificate),
        anchors=[Path(file) for file in arguments.anchors],
    )


def _judge_merged(opened: SignedStatement, arguments: argparse.Namespace) -> VerifiedMerge:
    from flopsd.attestation.merge.verify_merged import verify_merged
    from flopsd.settings.data_files import Tables

    for given, option in (
        (arguments.journal, "--journal"),
        (arguments.anchors, "--anchors"),
        (arguments.aws_certificate, "--aws-certificate"),
        (arguments.tsa_certificate, "--tsa-certificate"),
    ):
        if given:  # ignoring it would let the verdict say more than was looked at
            raise ConfigError(
                [f"{arguments.verb}: {option} is for a node's ledger, and {arguments.ledger} is a {opened.kind}'s"],
                hint="verify the ledgers of its nodes with it, one by one",
            )
    return verify_merged(
        opened,
        children=arguments.children,
        allow_replay=arguments.allow_replay,
        tables=Tables(arguments.peaks, arguments.policy),
        note=lambda words: print(f"flopsd: {words}", file=sys.stderr),
    )


def _verify(arguments: argparse.Namespace) -> int:
    from flopsd.attestation.verify import Verified
    from flopsd.report.ledger_text import verified_merge_text, verified_text
    from flopsd.report.terminal import one_line

    verdict = sys.stdout
    if arguments.explain:
        from flopsd.report.offline_recipe import recipe

        journal = None if arguments.journal is None else Path(arguments.journal)
        print(recipe(Path(arguments.ledger), arguments.key, journal), end="", flush=True)
        verdict = sys.stderr
    try:
        found = judge(arguments)
    except NotVerifiedError as fault:
        if arguments.json:
            print(json.dumps({"verified": False, "reason": str(fault), "hint": fault.hint}))
        else:
            print(f"NOT VERIFIED: {one_line(fault)}", file=verdict)
            if fault.hint:
                print(f"flopsd: hint: {fault.hint}", file=sys.stderr)
        return NOT_VERIFIED
    if arguments.json:
        print(json.dumps(_facts(found)))
    elif isinstance(found, Verified):
        print(verified_text(found), end="", file=verdict)
    else:
        print(verified_merge_text(found), end="", file=verdict)
    return OK


def _facts(found: Verified | VerifiedMerge) -> dict[str, Any]:
    """What `--json` tells."""
    from dataclasses import asdict

    from flopsd.attestation.verify import Verified

    facts: dict[str, Any] = {"verified": True, "keyids": found.keyids, "replay": found.replay}
    if isinstance(found, Verified):
        facts |= {
            "records": found.records,
            "unsealed_records": found.unsealed_records,
            "evidence": [finding.as_json() for finding in found.evidence],
            "anchors": None if found.anchored is None else found.anchored.for_json(),
        }
    else:
        facts["children"] = None if found.children is None else asdict(found.children)
    return {**facts, "predicate": found.statement["predicate"]}

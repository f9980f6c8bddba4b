"""`flopsd verify`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.cli.common import NOT_VERIFIED, OK, Verbs, add_repeatable, note, positive, remarks, waiting
from flopsd.errors import ConfigError, NotVerifiedError, SigningKeyError
from flopsd.report.terminal import one_line, shell_command
from flopsd.system.clock import SystemClock

if TYPE_CHECKING:
    from flopsd.attestation.merge.verify_merged import VerifiedMerge
    from flopsd.attestation.signed_statement import SignedStatement
    from flopsd.attestation.verify import Verified
    from flopsd.settings.data_files import Tables
    from flopsd.system.progress import ProgressLine


def add(verbs: Verbs) -> None:
    verify = verbs.add_parser(
        "verify",
        help="check a ledger's signatures and recompute every total",
        description="Checks the signatures of a ledger and recomputes every total from its journal and peak table. "
        "Exits with 0 if the ledger is verified, with 3 and the first failure if not.",
    )
    verify.add_argument("ledger", metavar="LEDGER", help="the ledger file; its journal is expected next to it")
    add_verification(verify, key_text="public key of a signer, a PEM file; at least one is needed")
    output = verify.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the result as JSON")
    output.add_argument(
        "--explain",
        action="store_true",
        help="print a shell script that checks this ledger without flopsd; the verdict goes to stderr",
    )
    verify.set_defaults(run=_verify)


def add_verification(parser: argparse.ArgumentParser, *, key_text: str) -> None:
    """Add the options of verification. --key is not required by argparse: `_no_key` explains more if it is missing."""
    add_repeatable(parser, "--key", "PUBLIC-KEY", key_text)
    add_inputs(parser)
    for flag, metavar, text in (
        (
            "--also",
            "OTHER",
            "another ledger of the same run and node: it is verified too, and the output says which of the two is the "
            "earlier seal; two that diverge are refused",
        ),
        ("--aws-certificate", "FILE", "AWS certificate of the region, to check the instance identity document"),
        (
            "--tsa-certificate",
            "FILE",
            "root certificate of a timestamp authority, with the intermediates that its timestamps lack",
        ),
        (
            "--anchors",
            "LOGFILE",
            "log with the daemon's checkpoint lines, exported from CloudWatch Logs, S3 or a container runtime, "
            "gzipped or not; every line must match the journal",
        ),
        ("--children", "LEDGER", "for a merged ledger: its children, as files, folders, archives or s3:// prefixes"),
    ):
        add_repeatable(parser, flag, metavar, text)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the options of verification that `countersign` also has."""
    parser.add_argument(
        "--threshold",
        type=positive,
        default=1,
        metavar="N",
        help="number of these keys that must have signed (default: 1)",
    )
    parser.add_argument("--journal", type=Path, metavar="FILE", help="the journal (default: next to the ledger)")
    text = "a peak table of the ledger that is not flopsd's own; you accept its author's rates"
    add_repeatable(parser, "--peaks", "FILE", text)
    add_repeatable(parser, "--policy", "FILE", "a policy of the ledger that is not flopsd's own")
    parser.add_argument(
        "--allow-replay", action="store_true", help="accept a replayed recording, which is not evidence"
    )


def verify_with(
    arguments: argparse.Namespace, line: ProgressLine, *, in_parts: bool = False
) -> Verified | VerifiedMerge:
    """Verify as `_verified`, and name the given tables and policies that were of no use."""
    from flopsd.settings.data_files import Tables

    tables = Tables(peaks_files=arguments.peaks, policy_files=arguments.policy)
    found = _verified(arguments, tables, line, in_parts=in_parts)
    for path in tables.unused():
        line.above(remarks(arguments))(f"{path} was not used: it is neither the peak table nor a policy of the ledger")
    return found


def _verified(
    arguments: argparse.Namespace, tables: Tables, line: ProgressLine, *, in_parts: bool
) -> Verified | VerifiedMerge:
    """Verify the ledger with the options of `add_verification`. `in_parts`: do not hold the children of a large merged
    ledger as a list, which takes five times the memory of their text. Raises NotVerifiedError, and ConfigError for
    options that do not apply to this kind of ledger."""
    from flopsd.attestation.evidence.trust import load_trust
    from flopsd.attestation.ledger_files import journal_beside
    from flopsd.attestation.merge.large_statement import parse_statement
    from flopsd.attestation.same_run import SealedRun, compare
    from flopsd.attestation.signed_statement import open_ledger
    from flopsd.attestation.signing.public_key import load_public
    from flopsd.attestation.verify import verify_ledger
    from flopsd.core.untrusted import parse_json

    try:
        keys = [load_public(file) for file in arguments.key]
    except SigningKeyError as fault:
        if not fault.code:
            raise
        raise NotVerifiedError(str(fault), hint=fault.hint, code=fault.code) from fault
    parse = parse_statement if in_parts else parse_json
    opened = open_ledger(Path(arguments.ledger), keys, arguments.threshold, parse=parse)
    if opened.kind in ("job", "lineage"):
        return _verify_merged(opened, arguments, tables, line)
    if arguments.children:
        raise ConfigError(
            [f"{arguments.verb}: --children applies to merged ledgers only; {arguments.ledger} is the ledger of a node"]
        )
    allow_replay = arguments.allow_replay
    found = verify_ledger(
        opened,
        journal=arguments.journal,
        tables=tables,
        allow_replay=allow_replay,
        trust=load_trust(arguments.aws_certificate, arguments.tsa_certificate),
        anchors=[Path(file) for file in arguments.anchors],
        progress=line,
    )
    mine = SealedRun(arguments.ledger, arguments.journal or journal_beside(opened.path), found)
    also, others = [], set(found.not_signed_by)
    for other in arguments.also:
        try:
            again = open_ledger(Path(other), keys, arguments.threshold)
            verified = verify_ledger(again, tables=tables, allow_replay=allow_replay, progress=line)
        except NotVerifiedError as fault:
            raise NotVerifiedError(f"--also {other}: {fault}", hint=fault.hint, code=fault.code) from fault
        others -= {*again.keyids}  # a continuing run may get another key
        also.append(compare(mine, SealedRun(other, journal_beside(again.path), verified)))
    return replace(found, also=tuple(also), not_signed_by=tuple(one for one in found.not_signed_by if one in others))


def _verify_merged(
    opened: SignedStatement, arguments: argparse.Namespace, tables: Tables, line: ProgressLine
) -> VerifiedMerge:
    from flopsd.attestation.merge.verify_merged import verify_merged

    for option in ("journal", "also", "anchors", "aws-certificate", "tsa-certificate"):
        if getattr(arguments, option.replace("-", "_")):  # ignoring it would claim a check that was not made
            kind = f"{arguments.ledger} is a {opened.kind} ledger"
            raise ConfigError(
                [f"{arguments.verb}: --{option} applies to ledgers of nodes; {kind}"],
                hint="use it to verify the ledgers of the nodes",
            )
    return verify_merged(
        opened,
        children=arguments.children,
        allow_replay=arguments.allow_replay,
        tables=tables,
        note=line.above(remarks(arguments)),
        progress=line,
    )


def _verify(arguments: argparse.Namespace) -> int:
    from flopsd.attestation.verify import Verified
    from flopsd.report.ledger_text import verified_merge_text, verified_text

    if not arguments.key:
        raise _no_key(arguments)
    verdict = sys.stdout
    if arguments.explain:
        from flopsd.report.contents.offline_recipe import recipe
        from flopsd.settings.data_files import own_policies

        given = [*arguments.peaks, *own_policies(arguments.policy)]
        print(recipe(Path(arguments.ledger), arguments.key, arguments.journal, given), end="", flush=True)
        verdict = sys.stderr
    try:
        with waiting(arguments, f"verifying {arguments.ledger}") as line:
            found = verify_with(arguments, line, in_parts=not arguments.json)
    except NotVerifiedError as fault:
        if arguments.json:
            facts = {"verified": False, "code": fault.code, "path": fault.path or None}
            print(json.dumps({**facts, "reason": str(fault), "hint": fault.hint}))
        else:
            print(f"NOT VERIFIED: {one_line(fault)}", file=verdict)
            if fault.hint:
                note(f"hint: {fault.hint}")
        return NOT_VERIFIED
    now_ns = SystemClock().wall_ns()
    if arguments.json:
        print(json.dumps(_facts(found, now_ns)))
    elif not arguments.quiet:
        text = verified_text(found, now_ns) if isinstance(found, Verified) else verified_merge_text(found, now_ns)
        print(text, end="", file=verdict)
    return OK


def _no_key(arguments: argparse.Namespace) -> ConfigError:
    """An error that names the public key next to the ledger, if any, and what trusting it would mean."""
    from flopsd.attestation.ledger_files import public_key_beside
    from flopsd.attestation.signing.public_key import load_public

    missing = "verify: --key is missing: a ledger is verified with its signer's public key"
    beside = public_key_beside(Path(arguments.ledger))
    try:
        key = load_public(str(beside))
    except SigningKeyError:
        return ConfigError([missing], hint="get it from the signer, by another way than the ledger")
    after = arguments.words.index(arguments.verb) + 1
    command = ["flopsd", *arguments.words[:after], "--key", str(beside), *arguments.words[after:]]
    return ConfigError(
        [
            missing,
            f"next to the ledger there is {beside}, {key.type}, key id {key.keyid}",
            "a key that came with the ledger shows only that no one but its holder changed the ledger since it was "
            "sealed; whose key it is, only the signer can say: compare the key id with the one that they published",
        ],
        hint=f"to verify with this key all the same: {shell_command(command)}",
    )


def _facts(found: Verified | VerifiedMerge, now_ns: int) -> dict[str, Any]:
    """The result for `--json`."""
    from flopsd.attestation.times import seal_time_doubts
    from flopsd.attestation.verify import Verified

    predicate = found.statement["predicate"]
    facts: dict[str, Any] = {"verified": True, "keyids": found.keyids, "replay": found.replay}
    facts["notSignedBy"] = found.not_signed_by
    facts["foreignFiles"] = [one.for_json() for one in found.foreign]
    facts["sealTimeDoubts"] = seal_time_doubts(predicate, now_ns)
    if isinstance(found, Verified):
        facts |= {
            "records": found.records,
            "unsealed_records": found.unsealed_records,
            "also": [asdict(one) for one in found.also],
            "evidence": [asdict(finding) for finding in found.evidence],
            "anchors": None if found.anchored is None else found.anchored.for_json(),
        }
    else:
        facts["children"] = None if found.children is None else asdict(found.children)
    return {**facts, "predicate": predicate}

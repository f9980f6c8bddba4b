"""`flopsd merge`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from flopsd.cli.common import OK, Verbs, add_repeatable, positive, remarks, waiting
from flopsd.errors import ConfigError
from flopsd.system.clock import SystemClock
from flopsd.system.process_memory import collect_rarely


def add(verbs: Verbs) -> None:
    merge = verbs.add_parser(
        "merge",
        help="merge node ledgers into a job ledger, job ledgers into a lineage",
        description="Verifies every ledger, refuses missing and duplicate ones, adds them up and signs the result. "
        "Exits with 0 if merged, with 1 if the ledgers do not belong together, with 3 if one of them is not verified.",
    )
    merge.add_argument(
        "ledgers",
        nargs="+",
        metavar="LEDGER",
        help="a ledger, a folder, a quoted glob, a .tar.gz or s3://BUCKET/PREFIX; with the journals next to them",
    )
    signer = "public key of a signer of these ledgers, a PEM file"
    add_repeatable(merge, "--trust", "PUBLIC-KEY", signer, needed=True)
    merge.add_argument("--key", required=True, metavar="KEY-URI", help="private key that signs the merged ledger")
    merge.add_argument(
        "--ledger",
        required=True,
        metavar="FILE",
        help="file for the merged ledger; its public key is written next to it",
    )
    merge.add_argument(
        "--kind", choices=("job", "lineage"), default="job", help="kind of the merged ledger (default: job)"
    )
    merge.add_argument("--lineage", metavar="NAME", help="name of the lineage, with --kind lineage")
    merge.add_argument(
        "--nodes", type=positive, metavar="N", help="number of nodes of the job, if its ledgers do not record it"
    )
    merge.add_argument(
        "--allow-incomplete",
        action="store_true",
        help="merge even if ledgers are missing; the result is marked incomplete and has no upper bound",
    )
    merge.add_argument("--allow-replay", action="store_true", help="accept replayed recordings, which are not evidence")
    add_repeatable(merge, "--peaks", "FILE", "a peak table of these ledgers that is not flopsd's own")
    policy = "a policy to apply, or that these ledgers name: a packaged one or a file (default: eu-ai-act)"
    add_repeatable(merge, "--policy", "POLICY", policy)
    merge.add_argument("--json", action="store_true", help="print the result as JSON")
    merge.set_defaults(run=_merge)


def _merge(arguments: argparse.Namespace) -> int:
    collect_rarely()
    from flopsd.attestation.merge.merge import MergeRequest, merge_ledgers
    from flopsd.report.ledger_text import merged_text

    lineage = arguments.kind == "lineage"
    if lineage != (arguments.lineage is not None):
        raise ConfigError(["merge: --kind lineage and --lineage NAME must be given together"])
    if lineage and arguments.nodes is not None:
        raise ConfigError(["merge: --nodes applies to --kind job only"])
    request = MergeRequest(
        arguments.ledgers,
        arguments.trust,
        arguments.key,
        Path(arguments.ledger),
        arguments.kind,
        arguments.lineage,
        arguments.nodes,
        arguments.allow_incomplete,
        arguments.allow_replay,
        arguments.peaks,
        arguments.policy,
    )
    with waiting(arguments, "merging") as line:
        merged = merge_ledgers(request, SystemClock(), line.above(remarks(arguments)), line)
    if arguments.json:
        facts = {
            "ledger": str(merged.ledger),
            "publicKey": str(merged.public_key),
            "payloadSha256": merged.payload_sha256,
            "foreignFiles": [one.for_json() for one in merged.foreign],
            "predicate": merged.predicate,
        }
        print(json.dumps(facts))
    elif not arguments.quiet:
        print(merged_text(merged), end="")
    return OK

"""`merge`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.cli.common import OK, positive
from flopsd.errors import ConfigError
from flopsd.system.clock import SystemClock

if TYPE_CHECKING:
    from flopsd.cli.common import Verbs


def add(verbs: Verbs) -> None:
    """The verbs of this module."""
    merge = verbs.add_parser(
        "merge",
        help="merge node ledgers into a job ledger, jobs into a lineage",
        description="Verifies every ledger, refuses what is missing or in there twice, adds up and signs. "
        "Exit 0: merged. Exit 1: they do not fit together. Exit 3: one of them is not to be believed.",
    )
    merge.add_argument(
        "ledgers",
        nargs="+",
        metavar="LEDGER",
        help="a ledger, a folder, a quoted glob, a .tar.gz or s3://BUCKET/PREFIX; journals lie beside their ledgers",
    )
    merge.add_argument(
        "--trust", action="append", required=True, metavar="PUBLIC-KEY", help="PEM file of a key that may have signed"
    )
    merge.add_argument("--key", required=True, metavar="KEY-URI", help="the key that signs what comes out")
    merge.add_argument("--ledger", required=True, metavar="FILE", help="where to write it; its public key beside it")
    merge.add_argument("--kind", choices=("job", "lineage"), default="job", help="what to make (default: job)")
    merge.add_argument("--lineage", metavar="NAME", help="the name of the lineage that is made")
    merge.add_argument(
        "--nodes", type=positive, metavar="N", help="how many nodes the job had, where its ledgers do not say"
    )
    merge.add_argument(
        "--allow-incomplete",
        action="store_true",
        help="merge although ledgers are missing: marked as such, without an upper bound",
    )
    merge.add_argument(
        "--allow-replay", action="store_true", help="accept replays of recordings, which are no evidence"
    )
    merge.add_argument("--peaks", metavar="FILE", help="a peak table that is neither packaged nor beside its ledger")
    merge.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="FILE",
        help="a policy to hold the sum against beside the packaged EU AI Act, or in its place by its id; repeatable",
    )
    merge.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    merge.set_defaults(run=_merge)


def _merge(arguments: argparse.Namespace) -> int:
    from flopsd.attestation.merge.merge import MergeRequest, merge_ledgers
    from flopsd.report.ledger_text import merged_text

    lineage = arguments.kind == "lineage"
    if lineage != (arguments.lineage is not None):
        raise ConfigError(["merge: --kind lineage and --lineage NAME belong together"])
    if lineage and arguments.nodes is not None:
        raise ConfigError(["merge: --nodes is for --kind job"])
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
    merged = merge_ledgers(request, SystemClock(), lambda words: print(f"flopsd: {words}", file=sys.stderr))
    if arguments.json:
        facts = {
            "ledger": str(merged.ledger),
            "publicKey": str(merged.public_key),
            "payloadSha256": merged.payload_sha256,
            "predicate": merged.predicate,
        }
        print(json.dumps(facts))
    else:
        print(merged_text(merged), end="")
    return OK

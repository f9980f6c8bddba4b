"""How to check a ledger without flopsd, as a shell script for openssl, jq, sha256sum and python3.

docs/you-received-a-ledger.md prints the same lines and explains them; a test holds the two together and runs both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flopsd.attestation.ledger_files import journal_beside
from flopsd.attestation.signing.keys import load_public
from flopsd.attestation.signing.sigstore_bundle import signature_by
from flopsd.attestation.verify import read_ledger
from flopsd.core.envelope import Envelope, parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.errors import NotVerifiedError, SigningKeyError
from flopsd.report.terminal import one_line, shell_command

PAYLOAD = """\
jq -r .payload "$ledger" | base64 -d >payload.json; type=$(jq -r .payloadType "$ledger")
{ printf 'DSSEv1 %d %s %d ' ${#type} "$type" $(wc -c <payload.json); cat payload.json; } >pae.bin
"""
SIGNATURE = """\
jq -r ".signatures[$signature].sig" "$ledger" | base64 -d >sig.bin
openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in pae.bin -sigfile sig.bin
"""
DIGEST = """\
head -c "$(jq -r .predicate.method.journal.bytes payload.json)" "$journal" >sealed.jsonl
echo "$(jq -r '.subject[0].digest.sha256' payload.json)  sealed.jsonl" | sha256sum -c -
"""
CHAIN = """\
python3 - sealed.jsonl <<'END'
import hashlib, json, re, sys
head, count = bytes(32), 0
for line in open(sys.argv[1], "rb"):
    said, record = re.fullmatch(rb'\\{"h":"([0-9a-f]{64})",(?:"m":"[0-9a-f]{32}",)?"r":(\\{.*\\})\\}\\n', line).groups()
    head, count = hashlib.sha256(head + record).digest(), count + 1
    assert said == head.hex().encode(), f"line {count} does not continue the chain"
sealed = json.load(open("payload.json"))["predicate"]["method"]["journal"]
assert (sealed["records"], sealed["headSha256"]) == (str(count), head.hex()), "another journal was sealed"
print(f"{count} records, an unbroken chain, and the head that was sealed")
END
"""
FIGURES = """\
jq '.predicate | {replay, run: .run.id, node: .node.name, executed: (.totals.executed | {low, measured, high}),
  coveragePpm: .coverage.coveragePpm, gapSecondsByReason: .coverage.gapSecondsByReason, claim}' payload.json
"""


def recipe(ledger: Path, key_files: Sequence[str], journal: Path | None = None) -> str:
    """The script for one ledger. It is given for any file, one that flopsd refuses too: it is for doubters."""
    envelope = _envelope(ledger)
    beside = journal if journal is not None else journal_beside(ledger)
    lines = [
        f"# How to check {one_line(ledger.name)} without flopsd, in a folder of its own: "
        "openssl 3, jq, sha256sum, python3.\n"
        "set -eu\n"
        f"ledger={_quoted(ledger)}\njournal={_quoted(beside)}\n"
        'cd "$(mktemp -d)"\n',
        f"\n# What was signed: DSSE's encoding of the type and of the payload.\n{PAYLOAD}",
    ]
    for file in key_files:
        index = _index(envelope, file)
        lines.append(f"\n# Whether this key signed it.\nkey={_quoted(Path(file))} signature={index}\n{SIGNATURE}")
    if _has_journal(envelope):
        lines.append(f"\n# Whether the journal is the sealed one.\n{DIGEST}")
        lines.append(f"\n# Whether its records are those that were written, in their order.\n{CHAIN}")
    lines.append(f"\n# What it says.\n{FIGURES}")
    return "".join(lines)


def _quoted(path: Path) -> str:
    return shell_command([str(path.absolute())])


def _envelope(ledger: Path) -> Envelope | None:
    try:
        return parse_envelope(read_ledger(ledger))
    except NotVerifiedError:
        return None


def _index(envelope: Envelope | None, key_file: str) -> int:
    """Which signature to hold against the key: the one that it made, else the first, so that openssl says no."""
    try:
        return (signature_by(envelope, load_public(key_file)) or 0) if envelope is not None else 0
    except SigningKeyError:
        return 0


def _has_journal(envelope: Envelope | None) -> bool:
    """Whether a journal belongs to it: to a node's ledger, so to any that cannot be read as something else."""
    try:
        return envelope is None or parse_json(envelope.payload, "the payload")["predicate"]["kind"] == "node"
    except (NotVerifiedError, KeyError, TypeError):
        return True

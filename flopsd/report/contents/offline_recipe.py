"""A shell script that checks a ledger without flopsd, with openssl, jq, sha256sum and python3.

docs/you-received-a-ledger.md prints the same lines and explains them; a test compares the two and runs both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flopsd.attestation.ledger_files import journal_beside
from flopsd.attestation.signed_statement import read_ledger
from flopsd.core.envelope import parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.errors import NotVerifiedError
from flopsd.report.terminal import one_line, shell_command
from flopsd.settings.data_files import packaged_files, verifier_page
from flopsd.system.sha256 import hex_sha256

FUNCTIONS = """\
unbase64() {  # either alphabet, padded or not, and nothing else
  python3 -c 'import base64, sys
text = sys.stdin.read().strip().rstrip("=").replace("-", "+").replace("_", "/")
sys.stdout.buffer.write(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))'
}
open_ledger() {  # LEDGER: writes payload.json (the statement) and pae.bin (what signatures are over)
  jq -r .payload "$1" | unbase64 >payload.json; type=$(jq -r .payloadType "$1")
  { printf 'DSSEv1 %d %s %d ' ${#type} "$type" $(wc -c <payload.json); cat payload.json; } >pae.bin
}
signed_by() {  # KEY LEDGER: looks for the signature that the key made
  count=$(jq '.signatures | length' "$2"); number=0
  while [ "$number" -lt "$count" ]; do
    jq -r ".signatures[$number].sig" "$2" | unbase64 >sig.bin
    if openssl pkeyutl -verify -pubin -inkey "$1" -rawin -in pae.bin -sigfile sig.bin >/dev/null 2>&1; then
      echo "signature $number is by key $(openssl pkey -pubin -in "$1" -outform DER | sha256sum | cut -c1-64)"; return
    fi
    number=$((number + 1))
  done
  echo "no signature is by $1"; return 1
}
digests() {  # FILTER: SHA-256 that the statement names; what is none reads "none", and reaches no other command
  jq -r "$1"' | if type == "string" and test("\\\\A[0-9a-f]{64}\\\\z") then . else "none" end' payload.json
}
sealed() {  # JOURNAL: takes the part of it that the ledger is over
  head -c "$(jq -r .predicate.method.journal.bytes payload.json)" "$1" >sealed.jsonl
  echo "$(digests .subject[0].digest.sha256)  sealed.jsonl" | sha256sum -c -
}
chained() {  # checks that each line of that part continues the line before
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
}
rated() {  # LEDGER FILE...: which of these files, that you trust, its figures and findings follow from
  name=${1%.json}; shift
  digests '.predicate.method | [.peakTableSha256, .policies[].sha256] | flatten[]' | while read -r digest; do
    sha256sum "$@" </dev/null | grep "^$digest  " && continue
    beside=$(ls "$name".*-"$(echo "$digest" | cut -c1-16)".yaml 2>/dev/null) || beside="one that you have to ask for"
    echo "$digest is of no file that you trust, but of the sender's: $beside"
  done
}
"""
FIGURES = """\
jq -a '.predicate | {kind, replay, run: .run.id?, node: .node.name?,
  executed: (.totals.executed | {low, measured, high}), coveragePpm: .coverage.coveragePpm,
  gapSecondsByReason: .coverage.gapSecondsByReason}' payload.json
"""


def recipe(
    ledger: Path, key_files: Sequence[str], journal: Path | None = None, trusted: Sequence[str | Path] = ()
) -> str:
    """The script for one ledger. It is given for any file, even one that flopsd refuses: it is for readers who doubt
    flopsd. `trusted`: the peak tables and policies that the reader gave."""
    beside = journal if journal is not None else journal_beside(ledger)
    lines = [
        f"# How to check {one_line(ledger.name)} without flopsd, in a folder of its own: "
        "openssl 3, jq, sha256sum, python3.\n"
        "set -eu\n"
        f"ledger={_quoted(ledger)}\njournal={_quoted(beside)}\n"
        'cd "$(mktemp -d)"\n',
        f"\n{FUNCTIONS}",
        '\n# What was signed.\nopen_ledger "$ledger"\n',
    ]
    lines += [f'\n# Whether this key signed it.\nsigned_by {_quoted(Path(file))} "$ledger"\n' for file in key_files]
    if _has_journal(ledger):
        lines.append('\n# Whether the journal is the sealed one.\nsealed "$journal"\n')
        lines.append("\n# Whether its records are those that were written, in their order.\nchained\n")
    files = " ".join(_quoted(Path(file)) for file in (*trusted, *packaged_files()))
    lines.append(
        "\n# Whose rates and rules it follows from. These files are flopsd's own, and those that you gave. One that\n"
        f'# came with the ledger is trusted no more for that.\nrated "$ledger" {files}\n'
    )
    page = verifier_page()
    lines += [
        f"\n# What it states.\n{FIGURES}",
        "\n# No line here computes a figure again. This page does, in a browser, without network and flopsd.\n"
        "# Its SHA-256 stands in docs/you-received-a-ledger.md too: take it from nobody who sent you a ledger.\n"
        f"# {one_line(page.absolute())}\n# {hex_sha256(page.read_bytes())}\n",
    ]
    return "".join(lines)


def _quoted(path: Path) -> str:
    return shell_command([str(path.absolute())])


def _has_journal(ledger: Path) -> bool:
    """Whether a journal belongs to a ledger: it is a node's, or cannot be read."""
    try:
        payload = parse_json(parse_envelope(read_ledger(ledger)).payload, "the payload")
        return bool(payload["predicate"]["kind"] == "node")
    except (NotVerifiedError, KeyError, TypeError):
        return True

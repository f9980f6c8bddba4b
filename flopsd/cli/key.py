"""`flopsd key new`, `flopsd key show`, `flopsd key check` and `flopsd countersign`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flopsd.cli.common import FAILED, OK, Verbs, add_repeatable, add_settings, be_nice, settings_of, waiting
from flopsd.cli.verify import add_inputs
from flopsd.errors import SigningKeyError
from flopsd.report.terminal import one_line, shell_command, shown
from flopsd.settings.schema import BY_KEY
from flopsd.system.file_presence import exists

if TYPE_CHECKING:
    from flopsd.attestation.signing.public_key import PublicKey

_TYPES = ("ed25519", "p256")
_KEY_URI = "file:PATH or a path, awskms:KEY or pkcs11:..."


def add(verbs: Verbs) -> None:
    key = verbs.add_parser(
        "key",
        help="create, show or check a signing key",
        description="Creates, shows or checks keys that sign ledgers.",
    )
    what = key.add_subparsers(dest="what", required=True, metavar="new|show|check")

    new = what.add_parser(
        "new",
        help="create a key pair",
        description="Creates the private key FILE (mode 0600) and the public key FILE.pub. Never overwrites a file.",
    )
    new.add_argument("file", metavar="FILE", help="file for the private key")
    new.add_argument("--type", choices=_TYPES, default="ed25519", help="kind of key (default: ed25519)")
    new.add_argument(
        "--encrypt",
        action="store_true",
        help="encrypt it with the passphrase in FLOPSD_KEY_PASSPHRASE, or in the file FLOPSD_KEY_PASSPHRASE_FILE",
    )
    new.add_argument("--json", action="store_true", help="print JSON")
    new.set_defaults(run=_new)

    show = what.add_parser(
        "show",
        help="show the type, id and public key of a key",
        description="Shows the type, id and public key of a private or public key. None of it is secret.",
    )
    show.add_argument("key", metavar="KEY-URI-or-PUBLIC", help=f"{_KEY_URI}, or a public key's PEM file")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_show)

    check = what.add_parser(
        "check",
        help="sign a few bytes with a key, as a run does at its start",
        description="Signs a few bytes that are not a ledger, and verifies the signature. Exit 0: the key signs. "
        "Exit 1: it cannot; the message says what to do. A PIN that a token refused is not sent to it again.",
    )
    check.add_argument("key", nargs="?", metavar="KEY-URI", help=f"{_KEY_URI} (default: the key of the settings)")
    add_settings(check, [BY_KEY["state_dir"]])
    check.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument("--refused-pin", type=int, help=argparse.SUPPRESS)  # an open file of the daemon
    check.set_defaults(run=_check)

    counter = verbs.add_parser(
        "countersign",
        help="verify a ledger and add a signature",
        description="Verifies LEDGER like `flopsd verify`, with the keys given by --trust, then adds a signature. "
        "Exits with 3 if the ledger is not verified; then nothing is signed.",
    )
    counter.add_argument("ledger", metavar="LEDGER", help="the ledger file")
    counter.add_argument("--key", required=True, metavar="KEY-URI", help=f"private key that signs: {_KEY_URI}")
    add_repeatable(counter, "--trust", "PUBLIC-KEY", "public key of an earlier signer, a PEM file", needed=True)
    add_inputs(counter)
    counter.add_argument(
        "-o", "--output", metavar="FILE", help="write the ledger with all signatures to FILE (default: LEDGER itself)"
    )
    counter.add_argument("--json", action="store_true", help="print JSON")
    counter.set_defaults(run=_countersign)


def _new(arguments: argparse.Namespace) -> int:
    from flopsd.attestation.signing.key_uri import scheme_of
    from flopsd.attestation.signing.pem import NO_PASSPHRASE, make_pem, write_new
    from flopsd.attestation.signing.secrets import passphrase

    scheme, rest = scheme_of(arguments.file)
    if scheme != "file":  # as --key reads it; such a file would not be found again
        raise SigningKeyError(
            f"{arguments.file} names no file, and `flopsd key new` makes files alone",
            hint="docs/keys.md shows how a key of AWS KMS or PKCS#11 is made; for a file with a colon write ./NAME",
        )
    path = Path(rest)
    beside = path.with_name(path.name + ".pub")
    secret = passphrase(os.environ) if arguments.encrypt else None
    if arguments.encrypt and secret is None:
        raise SigningKeyError("--encrypt needs a passphrase and none is given", hint=NO_PASSPHRASE)
    if exists(beside):
        raise SigningKeyError(f"{beside} already exists; keys are never overwritten", hint="give another file name")
    key = make_pem(path, arguments.type, secret)
    write_new(beside, key.public.pem, 0o644)
    if arguments.json:
        print(json.dumps({**_facts(key.public), "privateKeyFile": str(path), "publicKeyFile": str(beside)}))
    elif not arguments.quiet:
        rows = (("private key", path), ("public key", beside), ("type", key.public.type), ("key id", key.public.keyid))
        print(shown(f"{name:<12}{value}" for name, value in rows), end="")
    return OK


def _show(arguments: argparse.Namespace) -> int:
    from flopsd.attestation.signing.key_uri import scheme_of
    from flopsd.attestation.signing.keys import load_signer
    from flopsd.attestation.signing.public_key import is_public, parse_public, read_pem

    scheme, rest = scheme_of(arguments.key)
    data = read_pem(Path(rest), "key") if scheme == "file" else b""
    if is_public(data):
        public, what = parse_public(data, rest), f"the public key in the file {rest}"
    else:
        key = load_signer(arguments.key)
        public, what = key.public, key.describe()
    if arguments.json:
        print(json.dumps({**_facts(public), "is": what}))
    else:
        pem = public.pem.decode("ascii").splitlines()
        print(shown([what, f"type    {public.type}", f"key id  {public.keyid}", *pem]), end="")
    return OK


def _check(arguments: argparse.Namespace) -> int:
    be_nice()  # the daemon runs this while the job runs
    from flopsd.attestation.signing.check import check_configured
    from flopsd.attestation.signing.refused_pin import RefusedPin
    from flopsd.daemon.ledger_places import state_dir
    from flopsd.journal.state_dir import StateDir

    settings = settings_of(arguments)
    folder = state_dir(settings, os.environ)
    refused = RefusedPin(StateDir(folder).refused_pin, arguments.refused_pin)
    try:
        key = check_configured(settings.key, folder, os.environ, refused)
    except SigningKeyError as fault:
        if not arguments.json:
            raise
        print(json.dumps({"usable": False, "reason": fault.reason, "problem": str(fault), "fix": fault.hint}))
        return FAILED
    if arguments.json:
        facts = {} if key is None else {**_facts(key.public), "is": key.describe()}
        print(json.dumps({"usable": None if key is None else True, **facts}))
    elif not arguments.quiet:
        signs = [] if key is None else [f"{key.describe()} signs", f"key id  {key.public.keyid}"]
        print(shown(signs or [f"no key is given: the first seal makes one in {folder}"]), end="")
    return OK


def _facts(public: PublicKey) -> dict[str, str]:
    return {"type": public.type, "keyId": public.keyid, "publicKey": public.pem.decode("ascii")}


def _countersign(arguments: argparse.Namespace) -> int:
    from flopsd.attestation.countersign import countersign
    from flopsd.attestation.ledger_files import journal_beside
    from flopsd.attestation.signed_statement import open_ledger
    from flopsd.attestation.signing.keys import load_signer
    from flopsd.attestation.signing.public_key import load_public
    from flopsd.attestation.verify import verify_ledger
    from flopsd.settings.data_files import Tables

    ledger = Path(arguments.ledger)
    with waiting(arguments, f"verifying {ledger}") as line:
        verified = verify_ledger(
            open_ledger(ledger, [load_public(file) for file in arguments.trust], arguments.threshold),
            journal=arguments.journal,
            tables=Tables(peaks_files=arguments.peaks, policy_files=arguments.policy),
            allow_replay=arguments.allow_replay,
            progress=line,
        )
    key = load_signer(arguments.key)
    done = countersign(verified, ledger, key, None if arguments.output is None else Path(arguments.output))
    if arguments.json:
        facts = {"ledger": str(done.ledger), "added": done.added, "signatures": done.signatures}
        facts["foreignFiles"] = [one.for_json() for one in verified.foreign]
        print(json.dumps({**facts, "keyId": key.public.keyid, "verifiedWith": verified.keyids}))
        return OK
    if arguments.quiet:
        return OK
    action, rest = ("signed", "") if done.added else ("was already signed", "; nothing was added")
    keyids = {*verified.keyids, key.public.keyid}
    journal = arguments.journal or (journal_beside(ledger) if arguments.output else None)
    again = [word for file in arguments.trust for word in ("--key", file)]
    again += ["--key", "YOUR-PUBLIC-KEY", "--threshold", str(len(keyids))]
    again += ["--journal", str(journal)] if journal else []
    again += [word for file in arguments.peaks for word in ("--peaks", file)]
    again += [word for file in arguments.policy for word in ("--policy", file)]
    again += ["--allow-replay"] if verified.replay else []
    lines = (
        f"{done.ledger} {action} by {key.describe()}{rest}",
        *(f"{one.flag}: {one_line(one.text)}" for one in verified.foreign),
        f"  key id     {key.public.keyid}",
        f"  verified   with {', '.join(verified.keyids)}",
        f"  signatures {done.signatures}",
        "verify it with all public keys:",
        f"  {shell_command(['flopsd', 'verify', str(done.ledger), *again])}",
    )
    print(shown(lines), end="")
    return OK
